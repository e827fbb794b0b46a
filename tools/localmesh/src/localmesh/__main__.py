"""`python -m localmesh` runs the mesh; `python -m localmesh reset` deletes its state.

Exit status: 0 after a stop by signal; 1 if the mesh could not run or a child was killed; 2 for an invalid setting.
"""

import signal

# Ctrl-C during the imports below exits at once, without a traceback: no child runs yet.
signal.signal(signal.SIGINT, signal.SIG_DFL)

# ruff: noqa: E402
import argparse
import os
import sys
from pathlib import Path

from localmesh import env_file, unknown_settings
from localmesh.console import Console
from localmesh.gateways.install import GatewayError
from localmesh.mesh import describe
from localmesh.patience import Patience
from localmesh.ports import PortsTaken
from localmesh.services import InvalidDeclaration, read_services
from localmesh.settings import InvalidSettings, load
from localmesh.state import StateError, reset
from localmesh.up import up


def main() -> int:
    """Runs the command of the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="localmesh", description="Runs the mesh as local processes.")
    parser.add_argument("command", nargs="?", choices=("up", "reset"), default="up")
    command = parser.parse_args().command
    console = Console()
    try:
        given = {*env_file.load(Path(".env")), *unknown_settings.of_make(os.environ)}
        services = read_services()
        settings = load(services)
        if command == "reset":
            reset(settings.state_dir, console.say)
            return 0
        for line in unknown_settings.warnings(services, settings, given, os.environ):
            console.warn(line)
        return up(describe(services, settings, os.environ), settings.state_dir, console, Patience())
    except InvalidSettings as error:
        console.bad(str(error))
        return 2
    except (InvalidDeclaration, StateError, PortsTaken, GatewayError) as error:
        console.bad(str(error))
        return 1


if __name__ == "__main__":
    sys.exit(main())
