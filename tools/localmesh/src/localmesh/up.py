"""Runs a mesh from beginning to end: state, ports, processes."""

import asyncio
import signal
from contextlib import closing
from pathlib import Path

from localmesh import ports, state
from localmesh.console import Console
from localmesh.mesh import Mesh
from localmesh.patience import Patience
from localmesh.supervisor import Supervisor


def up(mesh: Mesh, state_dir: Path, console: Console, patience: Patience) -> int:
    """Runs `mesh` until a signal ends it; its exit status (see `Supervisor.run`).

    Raises:
        StateError: the state directory cannot be used, or a mesh runs on it.
        PortsTaken: nothing was started.
    """
    with closing(state.hold(state_dir, console.say)) as held:
        ports.require_free(mesh.ports, "make up")
        status = asyncio.run(Supervisor(mesh, held, console, patience).run())
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # one Ctrl-C too many must not end in a traceback
        return status
