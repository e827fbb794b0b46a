"""`python -m localmesh.kind up` brings the mesh up on a cluster made by kind; `down` deletes the cluster.

Exit status: 0 if it did; 1 if something kept it from that; 2 for a bad setting.
"""

from __future__ import annotations

import argparse
import signal
import sys

from localmesh.console import Console
from localmesh.kind import cluster, deploy, images
from localmesh.kind.greeting import greet
from localmesh.kind.programs import DOCKER, KIND, KUBECTL, CannotGoOn, check
from localmesh.kind.rollout import Rollout
from localmesh.kind.settings import KindSettings
from localmesh.settings import InvalidSettings, read


def up(settings: KindSettings, console: Console) -> None:
    """From nothing, or from a cluster that is there, to a mesh that serves and is traced.

    Raises:
        CannotGoOn: something is in the way.
    """
    check(DOCKER | KIND | KUBECTL)
    cluster.ensure(settings, console)
    builds = images.provide(console)
    deploy.apply(builds, settings)
    greet(Rollout(console).wait(), settings, console)


def down() -> None:
    """Deletes the cluster.

    Raises:
        CannotGoOn: something is in the way.
    """
    check(DOCKER | KIND)
    cluster.delete()


def main() -> int:
    """Does what the command line asks; the exit status."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # the programs it runs get the signal too, and nothing is left to undo
    parser = argparse.ArgumentParser(prog="localmesh.kind", description="Runs the mesh on a cluster made by kind.")
    parser.add_argument("command", choices=("up", "down"))
    console = Console()
    try:
        if parser.parse_args().command == "down":
            down()
        else:
            up(read(KindSettings), console)
    except InvalidSettings as error:
        console.bad(str(error))
        return 2
    except CannotGoOn as error:
        console.bad(str(error), error.details)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
