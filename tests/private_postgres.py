"""A PostgreSQL server for tests, started from the programs of this machine."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.ports import held_port

if TYPE_CHECKING:
    from collections.abc import Iterator


class PrivatePostgres:
    """A PostgreSQL server in a temporary directory, on a free loopback port."""

    def __init__(self) -> None:
        self._directory = ""
        self._user = "nobody" if os.geteuid() == 0 else None  # the server refuses to run as root
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
        self._run("pg_ctl", "start", "--wait", "--silent", f"--log={self._directory}/log", f"--options={options}")

    def stop(self) -> None:
        """Stops the server at once and breaks its connections."""
        self._run("pg_ctl", "stop", "--wait", "--silent", "--mode=immediate")

    def _initialise(self) -> None:
        if self._user:
            os.chown(self._directory, pwd.getpwnam(self._user).pw_uid, -1)
        self._run("initdb", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync")

    def _run(self, program: str, *arguments: str) -> None:
        command = [_postgres_program(program), *arguments, f"--pgdata={self._directory}/data"]
        # Without a pipe, because the server would inherit it and keep it open.
        subprocess.run(command, user=self._user, cwd=self._directory, check=True, stdout=subprocess.DEVNULL)


def _postgres_program(name: str) -> str:
    installed = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    found = shutil.which(name) or (str(installed[-1]) if installed else None)
    if found is None:
        pytest.skip(f"needs PostgreSQL ({name}): install postgresql, or set AIOMESH_TEST_POSTGRES_URL")
    return found
