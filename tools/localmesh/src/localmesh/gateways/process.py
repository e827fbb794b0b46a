"""A gateway as a process of its own, for tests and benchmarks: `make up` supervises its own."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from localmesh.gateways.install import write

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from localmesh.gateways.gateway import Addresses, Gateway

LOG = "log"
"""The file of its output, in its folder."""


@contextmanager
def running(gateway: Gateway, folder: Path, addresses: Addresses) -> Iterator[subprocess.Popen[bytes]]:
    """Fills a new folder with the configuration and runs the installed program, which is killed with its workers."""
    write(gateway, addresses, folder)
    with (folder / LOG).open("wb") as output:
        process = subprocess.Popen(
            gateway.command(folder, addresses),
            env={**os.environ, **gateway.environment(folder, addresses)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
