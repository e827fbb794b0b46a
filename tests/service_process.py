"""A service's process as an operator runs it: `python -m`, settings by environment, logs on standard error."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import grpc

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncIterator


class ServiceProcess:
    """A running process whose log lines are read as they come, so that it never waits for its reader."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.lines: list[str] = []
        self._grown = asyncio.Condition()
        self._reading = asyncio.create_task(self._read())

    async def logged(self, message: str) -> dict[str, object]:
        """The first log line whose message holds some text; waits for it."""
        async with self._grown:
            await self._grown.wait_for(lambda: self._reading.done() or any(message in line for line in self.lines))
        for line in self.lines:
            if message in line:
                record: dict[str, object] = json.loads(line)
                return record
        raise AssertionError(f"the process ended without {message!r}: {self.lines[-5:]}")

    async def address(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{(await self.logged('listening on'))['port']}"

    async def ended(self) -> int:
        """Its exit status, once it has ended."""
        await self._reading
        return await self.process.wait()

    async def _read(self) -> None:
        assert self.process.stderr
        async for line in self.process.stderr:
            async with self._grown:
                self.lines.append(line.decode())
                self._grown.notify_all()


@asynccontextmanager
async def running(module: str, **settings: str) -> AsyncIterator[ServiceProcess]:
    """A process of a service on a free port, killed at the end of the block; settings come without their prefix."""
    prefix = module.removeprefix("api_").upper()
    environ = {**os.environ, f"{prefix}_LISTEN": "127.0.0.1:0"}
    environ |= {f"{prefix}_{name.upper()}": value for name, value in settings.items()}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, env=environ, stderr=asyncio.subprocess.PIPE
    )
    service = ServiceProcess(process)
    try:
        yield service
    finally:
        if process.returncode is None:
            process.kill()
        await service.ended()


@asynccontextmanager
async def channel_to(service: ServiceProcess) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to a process, once it is SERVING."""
    address = await service.address()
    await service.logged("is SERVING")
    async with grpc.aio.insecure_channel(address) as channel:
        yield channel
