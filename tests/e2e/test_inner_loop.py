"""The tools for changing a service: `make up WITHOUT=NAME` and `make up RELOAD=1`."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.local_mesh import LocalMesh, call, order, trace
from tests.repository import ROOT, SERVICES
from tests.service_process import process

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

FOLDERS = ("libs", "services", "tools")
PRODUCT = "/v1/products/TEA-0001"


def launch(workspace: Path, service: str) -> tuple[list[str], dict[str, str]]:
    """The arguments of Python and the variables with which VS Code debugs a service in a workspace."""
    text = (ROOT / ".vscode" / "launch.json").read_text()
    text = text.replace("${workspaceFolder}", str(workspace)).replace("${input:service}", service)
    (configuration,) = json.loads(text)["configurations"]
    lines = Path(configuration["envFile"]).read_text().splitlines()
    return ["-m", configuration["module"]], dict(line.split("=", 1) for line in lines)


async def test_a_service_that_is_left_out_is_used_after_its_command_or_a_debugger_starts_it(
    tmp_path: Path,
) -> None:
    with LocalMesh(tmp_path / ".localmesh", {"WITHOUT": "pricing"}).running() as mesh:
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
        await asyncio.to_thread(mesh.read_until, "pricing has exited")
        arguments, variables = launch(tmp_path, "pricing")
        async with process(*arguments, environment={"PATH": os.environ["PATH"], **variables}):
            await asyncio.to_thread(mesh.read_until, "pricing is ready")
        assert mesh.stop() == 0


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the packages that may be edited."""
    copy = tmp_path_factory.mktemp("copy")
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, copy / folder)  # with the cached bytecode
    return copy


@pytest.fixture(scope="module")
def reloading(copy: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalMesh]:
    """`make up RELOAD=1` in the copy."""
    packages = [str(path) for folder in FOLDERS for path in copy.glob(f"{folder}/*/src")]
    environment = {"RELOAD": "1", "PYTHONPATH": os.pathsep.join(packages)}
    with LocalMesh(tmp_path_factory.mktemp("state"), environment).running() as mesh:
        yield mesh


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


async def test_an_edited_service_is_restarted_and_the_state_survives(reloading: LocalMesh, copy: Path) -> None:
    mesh, key = reloading, str(uuid.uuid4())
    pids = {service: mesh.pid(service) for service in SERVICES}
    while (first := await order(mesh, key, {"TEA-0001": 1})).status == 503:  # another test has restarted them all
        await asyncio.sleep(0.1)
    edit(copy / "services/inventory/src/inventory/convert.py", "= stock.title", '= "edited"')
    assert "restarting inventory" in await asyncio.to_thread(mesh.read_until, "restarting")
    await asyncio.to_thread(mesh.read_until, "inventory is ready again")
    assert {service for service in SERVICES if mesh.pid(service) != pids[service]} == {"inventory"}
    while (again := await call(mesh, "GET", f"/v1/orders/{first.body['id']}")).status == 503:
        await asyncio.sleep(0.1)
    assert (again.status, again.body["state"]) == (200, "RESERVED")
    page = await call(mesh, "GET", "/v1/products?page_size=1")
    assert page.body["products"][0]["title"] == "edited"


async def test_an_edit_of_meshkit_restarts_every_service_once_it_can_be_parsed(
    reloading: LocalMesh, copy: Path
) -> None:
    mesh = reloading
    pids = {service: mesh.pid(service) for service in SERVICES}
    errors = copy / "libs/meshkit/src/meshkit/errors.py"
    text = errors.read_text()
    errors.write_text(f"def broken(:\n{text}")
    line = await asyncio.to_thread(mesh.read_until, "errors.py")
    assert line.startswith(f"{errors}:1: invalid syntax; save it without the error to restart ")
    assert {service: mesh.pid(service) for service in SERVICES} == pids
    errors.write_text(text)
    assert "errors.py changed: restarting " in await asyncio.to_thread(mesh.read_until, "changed")
    again = [await asyncio.to_thread(mesh.read_until, "is ready again") for _ in SERVICES]
    assert {line.split()[0] for line in again} == set(SERVICES)
