"""Runs a mesh of `child` programs like `python -m localmesh`: `driver.py STATE_DIR SPECIFICATION`.

The specification is JSON: `{"stages": [[{"name": …, "port": …, "arguments": […]}]], "patience": {…}}`.
"""

import gc
import json
import os
import signal
import sys
from pathlib import Path
from typing import TypedDict

from localmesh.console import Console
from localmesh.mesh import Mesh
from localmesh.patience import Patience
from localmesh.ports import PortsTaken
from localmesh.probe import responds
from localmesh.program import Program
from localmesh.state import StateError
from localmesh.up import up


class Fake(TypedDict):
    name: str
    port: int
    arguments: list[str]
    sources: list[str]
    """The folders whose changes restart the program, which is then the copy of `child.py` in the first of them."""


class Specification(TypedDict):
    stages: list[list[Fake]]
    patience: dict[str, float]


def main() -> int:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    gc.freeze()  # only what is created from now on is of interest
    gc.set_threshold(50, 2, 2)  # so that asyncio soon reports a pending task that was garbage-collected
    state_dir = Path(sys.argv[1])
    specification: Specification = json.loads(sys.argv[2])
    stages = tuple(
        tuple(program(fake, state_dir.parent / "journal") for fake in stage) for stage in specification["stages"]
    )
    ports = {f"{program['name'].upper()}_PORT": program["port"] for s in specification["stages"] for program in s}
    try:
        mesh = Mesh(stages, ports, "WELCOME")
        return up(mesh, state_dir, Console(), Patience(**specification["patience"]))
    except (StateError, PortsTaken) as error:
        Console().bad(str(error))
        return 1


def program(fake: Fake, journal: Path) -> Program:
    sources = tuple(map(Path, fake["sources"]))
    child = sources[0] / "child.py" if sources else Path(__file__).with_name("child.py")
    argv = (sys.executable, str(child), fake["name"], str(fake["port"]), str(journal), *fake["arguments"])
    ready = responds(fake["port"], "/readyz")
    return Program(fake["name"], argv, os.environ, f"127.0.0.1:{fake['port']}", ready, sources=sources)


if __name__ == "__main__":
    sys.exit(main())
