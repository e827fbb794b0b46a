"""The greeter of meshkit's README, run in a new environment as another project would run it."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import aiohttp
import pytest

from tests.repository import ROOT
from tests.service_process import FREE, process
from tools.lock import pins

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

LIBRARY = ROOT / "libs" / "meshkit"
FENCE = re.compile(r"^```\w+ (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
"""A code block with a file name after the language."""

INHERITED = {
    name: os.environ[name] for name in os.environ if not name.startswith(("OTEL_", "GREETER_", "WEB_", "PYTHON"))
}

pytestmark = pytest.mark.timeout(180)  # it installs some 40 packages from the index


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The Python of a new environment with meshkit[fastapi] and grpcio-tools, installed by its own pip.

    uv has installed what they require before. The versions are those of the lock; otherwise a new release of a
    dependency could fail this test.
    """
    constraints = tmp_path_factory.mktemp("constraints") / "constraints.txt"
    constraints.write_text("\n".join(pins((ROOT / "requirements.lock").read_text())))
    venv = tmp_path_factory.mktemp("venv")
    python = str(venv / "bin" / "python")
    uv = (sys.executable, str(ROOT / "tools" / "bootstrap.py"), "uv")
    run(*uv, "venv", "--quiet", "--seed", "--no-project", "--allow-existing", "--python", sys.executable, str(venv))
    versions = ("--quiet", "--constraint", str(constraints))
    project = ("--requirements", str(LIBRARY / "pyproject.toml"), "--extra", "fastapi")
    run(*uv, "pip", "install", *versions, "--python", python, *project, "grpcio-tools")  # in a tenth of pip's time
    run(python, "-m", "pip", "install", "--no-compile", *versions, f"{LIBRARY}[fastapi]", "grpcio-tools")
    return python


@pytest.fixture(scope="module")
def greeter(python: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of the README and the code generated from its proto."""
    folder = tmp_path_factory.mktemp("greeter")
    files = dict(FENCE.findall((LIBRARY / "README.md").read_text()))
    assert files.keys() == {"greeter.proto", "server.py", "web.py"}
    for name, text in files.items():
        (folder / name).write_text(text)
    generate = ("-I.", "--python_out=.", "--grpc_python_out=.", "greeter.proto")
    run(python, "-m", "grpc_tools.protoc", *generate, folder=folder)
    return folder


def run(*command: str, folder: Path = ROOT) -> None:
    done = subprocess.run(command, check=False, cwd=folder, capture_output=True, text=True, env=INHERITED)
    assert done.returncode == 0, done.stderr


@asynccontextmanager
async def web(python: str, greeter: Path) -> AsyncIterator[aiohttp.ClientSession]:
    """Starts the server, and the route in front of it, as processes on free ports. Yields a client of the route."""
    addresses = {"GREETER_LISTEN": FREE, "WEB_LISTEN": FREE}
    async with process(str(greeter / "server.py"), environment=INHERITED | addresses, python=python) as server:
        await server.log_record("is SERVING")
        target = {"WEB_GREETER": await server.address()}
        async with (
            process(str(greeter / "web.py"), environment=INHERITED | addresses | target, python=python) as edge,
            aiohttp.ClientSession(f"http://{await edge.address()}") as http,
        ):
            yield http


async def test_the_greeter_of_the_readme_works_in_a_new_environment(python: str, greeter: Path) -> None:
    async with web(python, greeter) as http:
        async with http.get("/greet/Ada") as answer:
            assert (answer.status, await answer.json()) == (200, {"text": "Hello, Ada!"})
            assert re.fullmatch("[0-9a-f]{32}", answer.headers["X-Trace-Id"])
            assert answer.headers["X-Trace-Id"] in answer.headers["traceresponse"]
            assert answer.headers["Server-Timing"].startswith('greeter;desc="Greet";dur=')
        async with http.get("/greet/Bob") as answer:
            assert (answer.status, answer.content_type) == (404, "application/problem+json")
            problem = await answer.json(content_type=None)
    assert (problem["reason"], problem["domain"]) == ("UNKNOWN_PERSON", "greeter.example")
    assert (problem["detail"], problem["metadata"]) == ("nobody here is called Bob", {"name": "Bob"})
    assert problem["trace_id"] == answer.headers["X-Trace-Id"]


async def test_only_the_requested_extra_is_installed(python: str, greeter: Path) -> None:
    program = "import importlib.metadata as m; print(*(d.name for d in m.distributions()))"
    done = await asyncio.to_thread(
        subprocess.run, [python, "-c", program], check=True, capture_output=True, text=True, env=INHERITED
    )
    installed = {name.lower() for name in done.stdout.split()}
    assert "meshkit" in installed
    assert not {"sqlalchemy", "prometheus-client", "opentelemetry-instrumentation-grpc", "aiomesh-protos"} & installed
