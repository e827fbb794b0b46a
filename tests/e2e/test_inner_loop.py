"""What somebody does who changes a service: `make up` without it, and again whenever its sources change."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.e2e.local_mesh import LocalMesh, call, trace

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

PRODUCT = "/v1/products/TEA-0001"


async def test_a_service_that_is_left_out_is_used_when_its_printed_command_has_started_it(tmp_path: Path) -> None:
    with LocalMesh(tmp_path / "state", {"WITHOUT": "pricing"}).running() as mesh:
        command = mesh.read_until("-m pricing")
        assert (await call(mesh, "GET", PRODUCT)).body["price"] is None
        shell = await asyncio.create_subprocess_shell(
            f"exec {command}", cwd=tmp_path, stderr=asyncio.subprocess.DEVNULL
        )
        await asyncio.to_thread(mesh.read_until, "pricing is ready")
        while not (answer := await call(mesh, "GET", PRODUCT)).body["price"]:
            await asyncio.sleep(0.1)
        root = await trace(mesh, answer.trace_id, spans=5)
        assert sorted(client.children[0].service for client in root.children) == ["inventory", "pricing"]
        shell.terminate()
        assert await shell.wait() == 0
        await asyncio.to_thread(mesh.read_until, "pricing has ended")
        assert mesh.stop() == 0
