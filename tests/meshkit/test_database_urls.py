"""The URL of a database: libpq's parameters reach asyncpg, or are rejected by name."""

from __future__ import annotations

import re
import ssl
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest
import trustme

from meshkit.database.libpq import KeepAlive, Server
from meshkit.database.urls import parse_url

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def _no_variables_of_libpq(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("PGSSLMODE", "PGSSLROOTCERT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def server(url: str) -> Server:
    parsed = parse_url(url)
    assert isinstance(parsed, Server)
    return parsed


def read_by_asyncpg(parsed: Server) -> dict[str, list[str]]:
    """The parameters that asyncpg reads from a URL."""
    return parse_qs(urlsplit(str(parsed.arguments["dsn"])).query, strict_parsing=True)


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("postgresql://u:p@h:6432/n", [("h", 6432)]),
        ("postgres://u:p@h/n", [("h", None)]),
        ("POSTGRESQL://u:p@h/n", [("h", None)]),
        ("postgresql+asyncpg://u:p@h/n", [("h", None)]),
        ("postgresql+psycopg2://u:p@h/n", [("h", None)]),
        ("postgresql://u:p@h:/n", [("h", None)]),
        ("postgresql://u:p@/n", []),
        ("postgresql:///n?user=u&password=p", []),
        ("postgresql://u:p@:6432/n", [("", 6432)]),
        ("postgresql://u:p@[::1]:6432/n", [("::1", 6432)]),
        ("postgresql://u:p@[fe80::1%25eth0]/n", [("fe80::1%eth0", None)]),
        ("postgresql://u:p@%2Frun%2Fpg/n", [("/run/pg", None)]),
        ("postgresql://u:p@/n?host=/run/pg&port=6432", [("/run/pg", 6432)]),
        ("postgresql://u:p@/n?host=::1", [("::1", None)]),
        ("postgresql://u:p@a:1,b,[::2]:3/n", [("a", 1), ("b", None), ("::2", 3)]),
        ("postgresql://u:p@/n?host=a,b&port=1,2", [("a", 1), ("b", 2)]),
        ("postgresql://u:p@/n?host=a:1&host=b:2", [("a", 1), ("b", 2)]),
        ("postgresql://u:p@a,b/n?port=7", [("a", 7), ("b", 7)]),
        ("postgresql://u:p@ignored/n?host=h", [("h", None)]),
        ("postgresql://u:p@h/ignored?dbname=n", [("h", None)]),
        ("postgresql://h/?dbname=n&user=u&password=p", [("h", None)]),
    ],
)
def test_every_form_of_host_user_and_name_is_read(url: str, hosts: list[tuple[str, int | None]]) -> None:
    parsed = server(url)
    assert list(parsed.hosts) == hosts
    assert [parsed.arguments[name] for name in ("user", "password", "database")] == ["u", "p", "n"]
    assert (parsed.url.username, parsed.url.password, parsed.url.database) == ("u", "p", "n")


@pytest.mark.parametrize(
    ("written", "password"),
    [("a%40b%2Fc%3A%25", "a@b/c:%"), ("a+b", "a+b"), ("a/b", "a/b"), ("a?b=c&d", "a?b=c&d"), ("a#b:c", "a#b:c")],
)
def test_special_characters_of_a_password_are_kept(written: str, password: str) -> None:
    parsed = server(f"postgresql://u:{written}@h/n?application_name=x@y")
    assert parsed.arguments["password"] == password
    assert list(parsed.hosts) == [("h", None)]


def test_an_at_sign_in_a_parameter_ends_no_password() -> None:
    parsed = server("postgresql://h:5432/n?application_name=x@y")
    assert list(parsed.hosts) == [("h", 5432)]
    assert parsed.arguments["server_settings"] == {"timezone": "UTC", "application_name": "x@y"}


def test_parameters_reach_asyncpg() -> None:
    parsed = server(
        "postgresql://h/n?sslmode=require&target_session_attrs=read-write&passfile=/a%20b&krbsrvname=x"
        "&ssl_min_protocol_version=TLSv1.3&options=-c%20search_path=shop&fallback_application_name=shop+1"
    )
    assert read_by_asyncpg(parsed) == {
        "sslmode": ["require"],
        "target_session_attrs": ["read-write"],
        "passfile": ["/a b"],
        "krbsrvname": ["x"],
        "ssl_min_protocol_version": ["TLSv1.3"],
    }
    settings = {"timezone": "UTC", "options": "-c search_path=shop", "application_name": "shop+1"}
    assert parsed.arguments["server_settings"] == settings


def test_empty_parameters_are_as_if_missing_and_the_last_of_several_counts() -> None:
    parsed = server("postgresql://h/n?sslmode=&&sslrootcert=&connect_timeout=3&connect_timeout=10&sslmode=disable")
    assert read_by_asyncpg(parsed) == {"sslmode": ["disable"]}
    assert parsed.connect_timeout == 10


@pytest.mark.parametrize("query", ["connect_timeout=0", "connect_timeout=-1", ""])
def test_without_a_limit_connect_timeout_is_none(query: str) -> None:
    assert server(f"postgresql://h/n?{query}").connect_timeout is None


def test_keepalives_have_short_defaults_and_are_settings() -> None:
    assert server("postgresql://h/n").keepalive == KeepAlive(True, 10, 3, 3, 5000)
    every = "keepalives=0&keepalives_idle=1&keepalives_interval=2&keepalives_count=0&tcp_user_timeout=4"
    assert server(f"postgresql://h/n?{every}").keepalive == KeepAlive(False, 1, 2, 3, 4)


@pytest.mark.parametrize(
    ("query", "pooled"),
    [("", False), ("pgbouncer=session", False), ("pgbouncer=transaction", True), ("pgbouncer=true", True)],
)
def test_pgbouncer_names_its_mode(query: str, pooled: bool) -> None:  # noqa: FBT001 - a parameter of the test
    assert server(f"postgresql://h/n?{query}").transaction_pooling is pooled


@pytest.mark.parametrize(
    "query",
    [
        *("ssl=true", "ssl=prefer", "channel_binding=prefer", "gssencmode=disable", "client_encoding=utf-8"),
        *("sslsni=1", "sslcompression=0", "load_balance_hosts=disable", "sslcertmode=allow", "keepalives=1"),
    ],
)
def test_a_parameter_that_asks_for_what_happens_anyway_is_accepted(query: str) -> None:
    server(f"postgresql://h/n?{query}")


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("sslmode=s3cret", "sslmode must be disable or allow or prefer or require or verify-ca or verify-full"),
        ("target_session_attrs=s3cret", "target_session_attrs must be any or "),
        ("ssl_min_protocol_version=s3cret", "ssl_min_protocol_version must be TLSv1 or "),
        ("channel_binding=require", "channel_binding must be disable or prefer"),
        ("gssencmode=require", "gssencmode must be disable or prefer"),
        ("client_encoding=s3cret", "client_encoding must be UTF8 or auto"),
        ("pgbouncer=s3cret", "pgbouncer must be session or transaction"),
        ("connect_timeout=s3cret", "connect_timeout must be an integer"),
        ("tcp_user_timeout=1.5", "tcp_user_timeout must be an integer"),
        ("host=a,b&port=1,2,3", "port must have one value or as many as there are hosts, 2"),
        ("port=s3cret", "port must be a number from 1 to 65535"),
        ("port=65536", "port must be a number from 1 to 65535"),
        ("host=a:s3cret", "host must be a name, an address or a directory, and port a number"),
        ("service=s3cret", "has the parameter service, which is not supported"),
        ("hostaddr=s3cret", "has the parameter hostaddr, which is not supported"),
        ("require_auth=s3cret", "has the parameter require_auth, which is not supported"),
        ("statement_cache_size=0", "has the parameter statement_cache_size, which is not supported"),
        ("sslmode", "has the parameter sslmode without a value"),
        ("s3cret%20!=1", "has a parameter without a valid name"),
        ("sslmode=verify-full", "sslmode=verify-full needs sslrootcert: a file of certificates, or system"),
        ("sslmode=require&sslrootcert=/s3cret", "sslrootcert cannot be loaded: No such file or directory"),
        ("sslmode=require&sslcert=/s3cret", "sslcert or sslkey cannot be loaded: No such file or directory"),
        ("sslmode=require&sslrootcert=system", "sslrootcert=system needs sslmode=verify-full"),
        ("sslnegotiation=direct", "sslnegotiation=direct needs sslmode=require, verify-ca or verify-full"),
    ],
)
def test_what_is_not_supported_is_rejected_by_name_and_without_its_value(query: str, problem: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(problem)}") as error:
        parse_url(f"postgresql://user:s3cret@h/n?{query}")
    assert "s3cret" not in str(error.value)


@pytest.mark.parametrize(
    "url",
    [
        *("postgresql://", "postgresql://h", "postgresql://h/", "postgresql:/h/n", "postgresql://u:s3cret@x@h/n"),
        *("jdbc:postgresql://h/n", "mysql://h/n", "postgresql"),
    ],
)
def test_another_form_is_rejected_with_the_right_ones(url: str) -> None:
    with pytest.raises(ValueError, match="a database is sqlite:///file or postgresql://") as error:
        parse_url(url)
    assert "s3cret" not in str(error.value)


def test_a_sqlite_file_takes_no_parameters() -> None:
    with pytest.raises(ValueError, match="a SQLite file takes no parameters"):
        parse_url("sqlite:///notes.db?mode=ro")


def test_files_of_certificates_are_loaded_at_the_start(tmp_path: Path) -> None:
    authority = trustme.CA()
    root, identity = tmp_path / "root.pem", tmp_path / "client.pem"
    authority.cert_pem.write_to_path(root)
    authority.issue_cert("client").private_key_and_cert_chain_pem.write_to_path(identity)
    files = f"sslrootcert={root}&sslcert={identity}&sslkey={identity}"
    assert read_by_asyncpg(server(f"postgresql://h/n?sslmode=verify-full&{files}"))["sslcert"] == [str(identity)]
    with pytest.raises(ValueError, match="sslrootcert cannot be loaded"):
        parse_url(f"postgresql://h/n?sslrootcert={__file__}")
    with pytest.raises(ValueError, match="sslcert or sslkey cannot be loaded"):
        parse_url(f"postgresql://h/n?sslcert={identity}&sslkey={root}")


def test_the_authorities_of_the_system_are_used_by_name() -> None:
    context = server("postgresql://h/n?sslrootcert=system").arguments["ssl"]
    assert isinstance(context, ssl.SSLContext)
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
