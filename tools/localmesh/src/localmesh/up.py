"""Locks the state directory, checks the ports and runs the mesh."""

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
    """Runs `mesh` until a signal stops it; returns the exit status of `Supervisor.run`.

    Raises:
        StateError: the state directory cannot be used.
        PortsTaken: a port is in use; nothing was started.
        GatewayError: the program of the gateway cannot be installed.
    """
    with closing(state.hold(state_dir, console.say)) as locked:
        ports.require_free(mesh.ports, "make up")
        if mesh.prepare:
            mesh.prepare(console.say)
        status = asyncio.run(Supervisor(mesh, locked, console, patience).run())
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a further Ctrl-C must not print a traceback
        return status
