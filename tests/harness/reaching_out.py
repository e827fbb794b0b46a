"""Unit tests that leave their process, for `test_isolation` to run. Only the last one is allowed."""

import asyncio
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import grpc
import pytest
from grpc import insecure_channel

pytestmark = pytest.mark.unit


def test_a_connection() -> None:
    socket.create_connection(("127.0.0.1", 1))


async def test_a_server() -> None:
    await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)


def test_a_process() -> None:
    subprocess.run([sys.executable, "-c", ""], check=True)


async def test_a_process_of_the_loop() -> None:
    await asyncio.create_subprocess_exec(sys.executable)


async def test_a_channel() -> None:
    grpc.aio.insecure_channel("127.0.0.1:1")


def test_a_channel_whose_name_was_imported() -> None:
    insecure_channel("127.0.0.1:1")


async def test_a_grpc_server() -> None:
    grpc.aio.server()


def test_a_connection_whose_failure_is_caught() -> None:
    with suppress(BaseException):
        socket.create_connection(("127.0.0.1", 1))


async def test_only_files_and_a_loop(tmp_path: Path) -> None:
    await asyncio.to_thread((tmp_path / "file").touch)
