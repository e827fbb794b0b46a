"""The effect of `roles.sql`, run as in the pod, on a PostgreSQL of this machine."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

from tests.private_postgres import PrivatePostgres
from tests.repository import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROLES = ROOT / "deploy" / "k8s" / "components" / "postgres" / "roles.sql"
PASSWORDS = {"one": """it's "$HOME" \\ %L""", "gift_cards": "ünïcode"}


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The URL of a private server, without user and database."""
    with PrivatePostgres().running() as url:
        yield url.partition("@")[2].partition("/")[0]


@pytest.fixture
def folder() -> Iterator[Path]:
    """The folder of the passwords, which every user may read."""
    with TemporaryDirectory(prefix="aiomesh-passwords-") as path:
        Path(path).chmod(0o755)
        yield Path(path)


def start(server: str, folder: Path, passwords: Mapping[str, str]) -> None:
    """Runs the same as each start of the pod."""
    for name, password in passwords.items():
        (folder / name).write_text(password)
        (folder / name).chmod(0o644)
    psql(server, "postgres", "postgres", "-v", f"passwords={folder}", "-f", str(ROLES))


def psql(server: str, user: str, database: str, *arguments: str) -> str:
    """The output of psql. Raises CalledProcessError."""
    if (program := shutil.which("psql")) is None:
        pytest.skip("needs psql: install postgresql-client")
    command = (program, "-qtAX", f"postgresql://{user}@{server}/{database}", *arguments)
    environment = {"POSTGRES_PASSWORD": "any"}
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.strip()


def hashes(server: str) -> dict[str, str]:
    rows = psql(server, "postgres", "postgres", "-c", "SELECT rolname, rolpassword FROM pg_authid WHERE rolcanlogin")
    return dict(row.split("|") for row in rows.splitlines())


def is_refused(server: str, user: str, database: str) -> bool:
    try:
        psql(server, user, database, "-c", "SELECT 1")
    except subprocess.CalledProcessError as error:
        return "permission denied for database" in error.stderr
    return False


def test_each_service_has_a_database_that_no_other_role_can_use(server: str, folder: Path) -> None:
    start(server, folder, PASSWORDS)
    for name in PASSWORDS:
        others = {*PASSWORDS, "postgres", "template1"} - {name}
        assert all(is_refused(server, name, database) for database in others)
        psql(server, name, name, "-c", "CREATE TABLE IF NOT EXISTS mine (id int)")


def test_a_start_sets_changed_passwords_and_adds_new_services(server: str, folder: Path) -> None:
    start(server, folder, PASSWORDS)
    before = hashes(server)
    assert all(before[name].startswith("SCRAM-SHA-256$") for name in PASSWORDS)
    start(server, folder, {"one": "another", "late": "secret"})
    after = hashes(server)
    assert after["one"] != before["one"]
    assert psql(server, "late", "late", "-c", "SELECT 1") == "1"
    assert is_refused(server, "one", "late")
