"""`python -m localmesh.kind up` runs the mesh on a cluster that kind creates; `down` deletes the cluster.

Exit status: 0 after success; 1 after a failure; 2 for an invalid setting.
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
    """Creates the cluster or uses the existing one, applies the manifests, and waits until a request has a trace.

    Raises:
        CannotGoOn: a step failed.
    """
    check(DOCKER | KIND | KUBECTL)
    cluster.ensure(settings, console)
    builds = images.provide(console)
    deploy.apply(builds, settings)
    greet(Rollout(console).wait(), settings, console)


def down() -> None:
    """Deletes the cluster.

    Raises:
        CannotGoOn: a program is missing or failed.
    """
    check(DOCKER | KIND)
    cluster.delete()


def main() -> int:
    """Runs the command of the command line; returns the exit status."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # its programs get the signal, too, and nothing must be cleaned up
    parser = argparse.ArgumentParser(prog="localmesh.kind", description="Runs the mesh on a cluster that kind creates.")
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
