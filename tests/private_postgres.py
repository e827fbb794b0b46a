"""A PostgreSQL server for tests, started from the programs of this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import uuid
from contextlib import asynccontextmanager, contextmanager
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import create_async_engine

from tests.ports import held_port
from tests.repository import ROOT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping


INITDB = ("--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync")
NEW_SERVERS = ROOT / ".pytest_cache" / "postgresql"
"""What initdb created, for each version of it and its arguments: copying takes a tenth of its time."""


class PrivatePostgres:
    """A PostgreSQL server in a temporary directory, on a free loopback port."""

    def __init__(self, files: Mapping[str, bytes] | None = None, options: str = "") -> None:
        """`files` are only for the server, in a directory that is `{0}` in its further `options`."""
        self._directory = ""
        self._files = files or {}
        self._options = options
        self._user = unprivileged_user()
        self.port = held_port()

    @contextmanager
    def running(self) -> Iterator[str]:
        """Creates and starts the server, yields its URL, and deletes the server."""
        with tempfile.TemporaryDirectory(prefix="aiomesh-pg-") as self._directory:
            self._initialise()
            self.start()
            try:
                yield f"postgresql://postgres@127.0.0.1:{self.port}/postgres"
            finally:
                self.stop()

    def start(self) -> None:
        """Starts the server and waits until it accepts connections."""
        options = f"-p {self.port} -k {self._directory} -c listen_addresses=127.0.0.1 -c fsync=off"
        options = f"{options} {self._options.format(self._directory)}"
        self._run("pg_ctl", "start", "--wait", "--silent", f"--log={self._directory}/log", f"--options={options}")

    def stop(self) -> None:
        """Stops the server at once and breaks its connections."""
        self._run("pg_ctl", "stop", "--wait", "--silent", "--mode=immediate")

    def _initialise(self) -> None:
        paths = [Path(self._directory, name) for name in self._files]
        for path in paths:
            path.write_bytes(self._files[path.name])
            path.chmod(0o600)
        known = NEW_SERVERS / _digest_of_initdb()
        if known.exists():
            _copy(known, Path(self._directory, "data"))
        if self._user:
            subprocess.run(["chown", "-R", self._user, self._directory], check=True)
        if not known.exists():
            self._run("initdb", *INITDB)
            _keep(Path(self._directory, "data"), known)

    def _run(self, program: str, *arguments: str) -> None:
        command = [_postgres_program(program), *arguments, f"--pgdata={self._directory}/data"]
        # Without a pipe, because the server would inherit it and keep it open.
        subprocess.run(command, user=self._user, cwd=self._directory, check=True, stdout=subprocess.DEVNULL)


def _digest_of_initdb() -> str:
    version = subprocess.run([_postgres_program("initdb"), "--version"], capture_output=True, check=True).stdout
    return sha256(version + repr(INITDB).encode()).hexdigest()[:16]


def _keep(data: Path, known: Path) -> None:
    known.parent.mkdir(parents=True, exist_ok=True)
    part = known.with_name(uuid.uuid4().hex)
    _copy(data, part)
    try:
        part.rename(known)
    except OSError:  # another process has kept its own
        shutil.rmtree(part)


def _copy(source: Path, target: Path) -> None:
    subprocess.run(["cp", "-R", source, target], check=True)


def unprivileged_user() -> str | None:
    """The user to run servers as that refuse to run as root; None for the own user."""
    return "nobody" if os.geteuid() == 0 else None


@asynccontextmanager
async def empty_databases(server_url: str, count: int) -> AsyncIterator[list[str]]:
    """The URLs of new databases on a server, which are dropped after the block."""
    server = make_url(server_url)
    names = [f"test_{uuid.uuid4().hex}" for _ in range(count)]
    engine = create_async_engine(server.set(drivername="postgresql+asyncpg"), isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        for name in names:
            await connection.execute(text(f"CREATE DATABASE {name}"))
        yield [server.set(database=name).render_as_string(hide_password=False) for name in names]
        for name in names:
            await connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    await engine.dispose()


def _postgres_program(name: str) -> str:
    installed = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    found = shutil.which(name) or (str(installed[-1]) if installed else None)
    if found is None:
        pytest.skip(f"needs PostgreSQL ({name}): install postgresql, or set AIOMESH_TEST_POSTGRES_URL")
    return found
