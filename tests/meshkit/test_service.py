"""What `meshkit.service.main` does for a service before it serves."""

from __future__ import annotations

import subprocess
import sys

SERVICE = """
import asyncio, gc
gc.disable()
from contextlib import asynccontextmanager
from meshkit.config import Address, ProcessSettings
from meshkit.service import main

class Settings(ProcessSettings):
    listen: Address = "127.0.0.1:0"

class App:
    async def serve(self, stop):
        print(type(asyncio.get_running_loop()).__module__, gc.get_freeze_count() > 10_000, gc.isenabled())

@asynccontextmanager
async def build(settings, telemetry):
    yield App()

main("tiny", Settings, build)
"""


def test_a_service_runs_on_uvloop_and_the_garbage_collector_ignores_what_was_built() -> None:
    process = subprocess.run([sys.executable, "-c", SERVICE], capture_output=True, text=True, check=True)
    assert process.stdout == "uvloop True True\n"
