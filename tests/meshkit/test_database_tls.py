"""TLS to PostgreSQL, with certificates of an authority of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trustme
from sqlalchemy import make_url, text

from meshkit.errors import describe
from tests.meshkit.notes import NotesUnavailable, open_notes, seed
from tests.private_postgres import PrivatePostgres

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(60)  # it starts a PostgreSQL server


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def folder(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of two authorities, of a client and, readable only for the server, of the server."""
    folder = tmp_path_factory.mktemp("certificates")
    authority.cert_pem.write_to_path(folder / "root.pem")
    trustme.CA().cert_pem.write_to_path(folder / "other.pem")
    authority.issue_cert("shop.test", common_name="shop").private_key_and_cert_chain_pem.write_to_path(
        folder / "client.pem"
    )
    return folder


@pytest.fixture(scope="module")
def server_url(authority: trustme.CA, folder: Path) -> Iterator[str]:
    """A server whose certificate is for 127.0.0.1 only."""
    identity = authority.issue_cert("127.0.0.1")
    server = PrivatePostgres(
        {
            "server.pem": b"".join(blob.bytes() for blob in identity.cert_chain_pems),
            "server.key": identity.private_key_pem.bytes(),
            "root.pem": (folder / "root.pem").read_bytes(),
        },
        "-c ssl=on -c ssl_cert_file={0}/server.pem -c ssl_key_file={0}/server.key -c ssl_ca_file={0}/root.pem",
    )
    with server.running() as url:
        yield url


async def connection_of(url: str, migrations: Path, **parameters: str) -> tuple[bool, str | None]:
    """Whether the connection of a database is encrypted, and the name in the client's certificate."""
    url = make_url(url).update_query_dict(parameters).render_as_string(hide_password=False)
    async with open_notes(url) as database:
        await database.prepare(migrations, seed)
        async with database.read() as connection:
            row = await connection.execute(text("SELECT ssl, client_dn FROM pg_stat_ssl WHERE pid = pg_backend_pid()"))
            encrypted, name = row.one()
            return encrypted, name


async def test_a_server_with_the_right_certificate_is_used(server_url: str, folder: Path, migrations: Path) -> None:
    root = str(folder / "root.pem")
    assert await connection_of(server_url, migrations, sslmode="verify-full", sslrootcert=root) == (True, None)
    assert await connection_of(server_url, migrations, sslmode="disable") == (False, None)
    assert await connection_of(server_url, migrations, sslmode="require") == (True, None)


async def test_a_client_shows_its_certificate(server_url: str, folder: Path, migrations: Path) -> None:
    files = {"sslrootcert": str(folder / "root.pem"), "sslcert": str(folder / "client.pem")}
    encrypted, name = await connection_of(
        server_url, migrations, sslmode="verify-full", sslkey=str(folder / "client.pem"), **files
    )
    assert encrypted
    assert "CN=shop" in (name or "")


async def test_a_server_of_another_authority_is_an_outage_with_the_reason(
    server_url: str, folder: Path, migrations: Path
) -> None:
    other = str(folder / "other.pem")
    with pytest.raises(NotesUnavailable) as failure:
        await connection_of(server_url, migrations, sslmode="verify-full", sslrootcert=other)
    assert "certificate verify failed" in describe(failure.value)
    assert "certificate" not in failure.value.message


async def test_a_server_of_another_name_is_an_outage_with_the_reason(
    server_url: str, folder: Path, migrations: Path
) -> None:
    named = make_url(server_url).set(host="localhost").render_as_string(hide_password=False)
    root = str(folder / "root.pem")
    with pytest.raises(NotesUnavailable) as failure:
        await connection_of(named, migrations, sslmode="verify-full", sslrootcert=root)
    assert "Hostname mismatch, certificate is not valid for 'localhost'" in describe(failure.value)
    assert await connection_of(named, migrations, sslmode="verify-ca", sslrootcert=root) == (True, None)
