"""Runs programs of the mesh as an operator does: `python -m`, with environment variables; logs go to stderr."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import import_module
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import grpc

from tests.repository import SERVICES

if TYPE_CHECKING:
    import signal
    from asyncio import StreamReader
    from asyncio.subprocess import Process
    from collections.abc import AsyncIterator, Mapping

    from pydantic_settings import BaseSettings

FREE = "127.0.0.1:0"
GRPC_LISTENS = '"logger": "meshkit.lifecycle", "message": "listening on'
"""A part of the record that a gRPC server logs."""


@dataclass(frozen=True)
class Program:
    """A module that `python -m` runs, and its settings class."""

    name: str
    settings: type[BaseSettings]

    def __str__(self) -> str:
        return self.name

    @property
    def prefix(self) -> str:
        return str(self.settings.model_config.get("env_prefix"))

    def variable(self, setting: str) -> str:
        return f"{self.prefix}{setting}".upper()

    @property
    def addresses(self) -> dict[str, str]:
        """The settings for its listen addresses, and their defaults; with an empty one it does not listen."""
        fields = self.settings.model_fields.items()
        return {name: field.default for name, field in fields if name.endswith("listen")}

    @property
    def drains(self) -> bool:
        """Whether it serves for some time after the first signal."""
        return "drain_seconds" in self.settings.model_fields

    def environment(self, settings: dict[str, str]) -> dict[str, str]:
        """The environment variables of these settings, with free ports for the addresses that are not given."""
        free = {name: FREE for name, default in self.addresses.items() if default}
        return {self.variable(name): value for name, value in (free | settings).items()}


PROGRAMS = {name: Program(name, import_module(f"{name}.settings").Settings) for name in (*SERVICES, "tracebox")}


class ServiceProcess:
    """A running process. Its output is read continuously, so it never has to wait."""

    def __init__(self, process: Process) -> None:
        assert process.stdout
        assert process.stderr
        self.process = process
        self.printed: list[str] = []
        self.lines: list[str] = []
        self._streams = 2
        self._grown = asyncio.Condition()
        self._reading = asyncio.gather(self._read(process.stdout, self.printed), self._read(process.stderr, self.lines))

    async def line(self, text: str) -> str:
        """The first line with this text on stdout or stderr; waits for it."""
        async with self._grown:
            await self._grown.wait_for(lambda: not self._streams or self._found(text))
        if line := self._found(text):
            return line
        raise AssertionError(f"the process exited without {text!r}: {self.lines[-5:]}")

    async def log_record(self, message: str) -> dict[str, Any]:
        """The first log record with this text in its message; waits for it."""
        record: dict[str, Any] = json.loads(await self.line(message))
        return record

    @property
    def records(self) -> list[dict[str, Any]]:
        """All log records. Fails if stderr contains anything else."""
        return [json.loads(line) for line in self.lines]

    async def address(self) -> str:
        """The address that it listens on; of the edge that of HTTP, which it names first."""
        return f"127.0.0.1:{(await self.log_record('listening on'))['port']}"

    async def grpc_address(self) -> str:
        """The address of its gRPC server."""
        return f"127.0.0.1:{(await self.log_record(GRPC_LISTENS))['port']}"

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def exit_status(self) -> int:
        """The exit status; waits until the process exits."""
        await self._reading
        return await self.process.wait()

    def _found(self, text: str) -> str | None:
        return next((line for line in (*self.printed, *self.lines) if text in line), None)

    async def _read(self, stream: StreamReader, lines: list[str]) -> None:
        async for line in stream:
            async with self._grown:
                lines.append(line.decode())
                self._grown.notify_all()
        async with self._grown:
            self._streams -= 1
            self._grown.notify_all()


@asynccontextmanager
async def running(
    module: str, environment: Mapping[str, str] | None = None, /, **settings: str
) -> AsyncIterator[ServiceProcess]:
    """Runs a program on free ports until the end of the block; `settings` have names without their prefix."""
    program = PROGRAMS[module]
    inherited = {name: os.environ[name] for name in os.environ if not name.startswith(("OTEL_", program.prefix))}
    variables = {**inherited, **program.environment(settings), **(environment or {})}
    async with process("-m", module, environment=variables) as started:
        yield started


@asynccontextmanager
async def process(
    *arguments: str, environment: Mapping[str, str], python: str = sys.executable
) -> AsyncIterator[ServiceProcess]:
    """Runs Python in an empty folder until the end of the block."""
    pipe = asyncio.subprocess.PIPE
    with TemporaryDirectory() as folder:
        started = await asyncio.create_subprocess_exec(
            python, *arguments, env=environment, cwd=folder, stdout=pipe, stderr=pipe
        )
        service = ServiceProcess(started)
        try:
            yield service
        finally:
            if started.returncode is None:
                started.kill()
            await service.exit_status()


@asynccontextmanager
async def channel_to(service: ServiceProcess) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to a process; waits until it is SERVING."""
    address = await service.address()
    await service.log_record("is SERVING")
    async with grpc.aio.insecure_channel(address) as channel:
        yield channel
