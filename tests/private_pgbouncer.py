"""A PgBouncer for tests, in front of their PostgreSQL server.

https://www.pgbouncer.org/config.html
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import make_url

from tests.ports import held_port
from tests.private_postgres import unprivileged_user

if TYPE_CHECKING:
    from collections.abc import Iterator

CONFIGURATION = """
[databases]
* = host={server.host} port={server.port} user={server.username}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
default_pool_size = {sessions}
"""


@contextmanager
def private_pgbouncer(server_url: str, mode: str, *, sessions: int) -> Iterator[int]:
    """Starts a PgBouncer, yields its port, and stops it; it opens up to `sessions` connections to a database."""
    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if program is None:
        pytest.skip("needs PgBouncer: install pgbouncer")
    port = held_port()
    with tempfile.NamedTemporaryFile("w", prefix="aiomesh-pgbouncer-", suffix=".ini") as file:
        file.write(CONFIGURATION.format(server=make_url(server_url), port=port, mode=mode, sessions=sessions))
        file.flush()
        Path(file.name).chmod(0o644)
        process = subprocess.Popen(
            [program, file.name], user=unprivileged_user(), stderr=subprocess.PIPE, text=True, bufsize=1
        )
        try:
            _wait_until_it_listens(process)
            yield port
        finally:
            process.kill()
            process.communicate()


def _wait_until_it_listens(process: subprocess.Popen[str]) -> None:
    assert process.stderr
    lines = []
    for line in process.stderr:
        lines.append(line)
        if "process up" in line:
            return
    raise AssertionError(f"PgBouncer has exited: {lines}")
