"""Invalid values of the edge's settings."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING

import pytest
import trustme

from api_edge.settings import Settings
from meshkit.config import load_settings
from meshkit.tls import TlsFiles

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("EDGE_LISTEN", "8080"),
        ("EDGE_LISTEN", "127.0.0.1:"),
        ("EDGE_LISTEN", "127.0.0.1:x"),
        ("EDGE_LISTEN", "127.0.0.1:-1"),
        ("EDGE_LISTEN", "127.0.0.1:65536"),
        ("EDGE_LISTEN", "127.0.0.1:\u0661"),
        ("EDGE_GRPC_LISTEN", "50050"),
        ("EDGE_MAX_PENDING", "0"),
        ("EDGE_INVENTORY_TARGET", ""),
        ("EDGE_PRICING_TARGET", ""),
        ("EDGE_INVENTORY_TARGET", "http://127.0.0.1:50051"),
        ("EDGE_PRICING_TARGET", "127.0.0.1"),
        ("EDGE_TRACE_URL", "http://traces/{trace_id}\nX-Evil: 1"),
        ("EDGE_TRACE_URL", "http://traces/{trace_id}?\u00e4"),
        ("EDGE_ORDER_RETENTION_SECONDS", "59"),  # a purge would delete the quote of an order that is just being placed
        ("EDGE_DRAIN_SECONDS", "-1"),
        ("EDGE_DRAIN_SECONDS", "inf"),
        ("EDGE_DRAIN_SECONDS", "soon"),
        ("EDGE_GRACE_SECONDS", "0"),
        ("EDGE_GRACE_SECONDS", "nan"),
        ("EDGE_TELEMETRY", "none"),
        ("EDGE_TRUSTED_PROXIES", "proxy.example.com"),
        ("EDGE_TRUSTED_PROXIES", "10.0.0.1/8"),
        ("EDGE_TRUSTED_PROXIES", "10.0.0.0/8,*"),
        ("EDGE_PATH_PREFIX", "shop"),
        ("EDGE_PATH_PREFIX", "//shop"),
        ("EDGE_PATH_PREFIX", "https://shop.example.com/shop"),
        ("EDGE_PATH_PREFIX", "/a/../b"),
        ("EDGE_ALLOWED_HOSTS", "shop.example.com:443"),
        ("EDGE_ALLOWED_HOSTS", "https://shop.example.com"),
        ("EDGE_ALLOWED_HOSTS", "*"),
        ("EDGE_CORS_ORIGINS", "*"),
        ("EDGE_CORS_ORIGINS", "null"),
        ("EDGE_CORS_ORIGINS", "shop.example.com"),
        ("EDGE_CORS_ORIGINS", "https://shop.example.com/"),
        ("EDGE_CORS_ORIGINS", "https://shop.example.com:443"),
        ("EDGE_CORS_ORIGINS", "https://Shop.example.com"),
        ("EDGE_PUBLIC", "maybe"),
        ("EDGE_LOG_LEVEL", "LOUD"),
        ("EDGE_SERVER", "gunicorn"),
        ("EDGE_TLS_CERT", "/nowhere/cert.pem"),
        ("EDGE_TLS_CERT", __file__),
        ("EDGE_TLS_KEY", "/nowhere/key.pem"),
    ],
)
def test_an_invalid_setting_ends_the_start_and_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SystemExit) as end:
        load_settings(Settings)
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{variable}: ")


@pytest.mark.parametrize(
    ("variable", "value", "setting"),
    [
        ("EDGE_TRUSTED_PROXIES", "", ()),
        ("EDGE_TRUSTED_PROXIES", "10.0.0.0/8, ::1,", (IPv4Network("10.0.0.0/8"), IPv6Network("::1/128"))),
        ("EDGE_PATH_PREFIX", "", ""),
        ("EDGE_PATH_PREFIX", "/", ""),
        ("EDGE_PATH_PREFIX", "/a/b/", "/a/b"),
        ("EDGE_ALLOWED_HOSTS", "Shop.example.com., [::1],127.0.0.1", ("shop.example.com", "::1", "127.0.0.1")),
        ("EDGE_CORS_ORIGINS", "http://localhost:3000,https://a", ("http://localhost:3000", "https://a")),
        ("EDGE_PUBLIC", "1", True),
    ],
)
def test_lists_are_separated_by_commas(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, setting: object
) -> None:
    monkeypatch.setenv(variable, value)
    assert getattr(load_settings(Settings), variable.removeprefix("EDGE_").lower()) == setting


@pytest.mark.parametrize(("http", "rpc"), [("", "127.0.0.1:50060"), ("127.0.0.1:8090", "")])
def test_one_protocol_may_be_left_out(monkeypatch: pytest.MonkeyPatch, http: str, rpc: str) -> None:
    monkeypatch.setenv("EDGE_LISTEN", http)
    monkeypatch.setenv("EDGE_GRPC_LISTEN", rpc)
    settings = load_settings(Settings)
    assert (settings.listen, settings.grpc_listen) == (http, rpc)


def test_a_process_without_any_protocol_does_not_start(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EDGE_LISTEN", "")
    monkeypatch.setenv("EDGE_GRPC_LISTEN", "")
    with pytest.raises(SystemExit):
        load_settings(Settings)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("EDGE_GRPC_LISTEN: must be an address if EDGE_LISTEN is empty")


def pem(folder: Path, name: str, *blobs: trustme.Blob) -> str:
    """The path of a new file with these blobs."""
    (folder / name).write_bytes(b"".join(blob.bytes() for blob in blobs))
    return str(folder / name)


def test_the_files_for_tls_belong_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = trustme.CA().issue_cert("127.0.0.1")
    monkeypatch.setenv("EDGE_TLS_CERT", pem(tmp_path, "cert.pem", *certificate.cert_chain_pems))
    monkeypatch.setenv("EDGE_TLS_KEY", pem(tmp_path, "key.pem", certificate.private_key_pem))
    assert load_settings(Settings).tls == TlsFiles(tmp_path / "cert.pem", tmp_path / "key.pem")


@pytest.mark.parametrize("key", ["", "another", "none", "absent"])
def test_a_certificate_without_its_key_ends_the_start_and_the_key_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], key: str
) -> None:
    certificate, other = (trustme.CA().issue_cert("127.0.0.1") for _ in range(2))
    pem(tmp_path, "another", other.private_key_pem)
    pem(tmp_path, "none")
    monkeypatch.setenv("EDGE_TLS_CERT", pem(tmp_path, "cert.pem", *certificate.cert_chain_pems))
    monkeypatch.setenv("EDGE_TLS_KEY", key and str(tmp_path / key))
    with pytest.raises(SystemExit) as end:
        load_settings(Settings)
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("EDGE_TLS_KEY: ")
