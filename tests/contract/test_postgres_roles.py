"""The effect of `roles.sql`, run as in the pod, on a PostgreSQL of this machine."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

from tests.contract.test_passwords import commands, run
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


def psql(server: str, user: str, database: str, *arguments: str, given: str | None = None) -> str:
    """The output of psql for this input. Raises CalledProcessError."""
    if (program := shutil.which("psql")) is None:
        pytest.skip("needs psql: install postgresql-client")
    command = (program, "-qtAX", f"postgresql://{user}@{server}/{database}", *arguments)
    environment = {"POSTGRES_PASSWORD": "any"}
    done = subprocess.run(command, env=environment, input=given, check=True, capture_output=True, text=True)
    return done.stdout.strip()


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


def test_a_new_password_is_set_as_documented_and_is_never_an_argument(
    server: str, folder: Path, tmp_path: Path
) -> None:
    start(server, folder, PASSWORDS | {"inventory": "old"})
    before = hashes(server)
    calls = run(commands("### A new password"), tmp_path)
    [new] = {given for call, given in calls.items() if " create secret " in call or call.startswith("replace")}
    assert len(new) == 32
    assert not [call for call in calls if new in call]
    [sql] = [given for call, given in calls.items() if " psql " in call]
    assert sql == f"ALTER ROLE inventory PASSWORD '{new}'"
    psql(server, "postgres", "postgres", given=sql)
    after = hashes(server)
    assert {name for name in after if after[name] != before[name]} == {"inventory"}
