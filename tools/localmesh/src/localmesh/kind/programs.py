"""Runs docker, kind and kubectl, which the user has installed."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CLUSTER = "aiomesh"
CONTEXT = f"kind-{CLUSTER}"  # the name that kind gives to the context of a cluster
NAMESPACE = "aiomesh-kind"  # of the overlay, never that of production
TAIL = 20  # lines shown of the output of a failed program

DOCKER = {"docker": "https://docs.docker.com/get-started/get-docker/"}
KIND = {"kind": "https://kind.sigs.k8s.io/docs/user/quick-start/#installation"}
KUBECTL = {"kubectl": "https://kubernetes.io/docs/tasks/tools/#kubectl"}


class CannotGoOn(Exception):
    """The cluster cannot be created or used; the text tells the user why, and `details` are lines to show below it."""

    def __init__(self, text: str, details: Sequence[str] = ()) -> None:
        super().__init__(text)
        self.details = details


def check(programs: Mapping[str, str]) -> None:
    """Checks that these programs are installed and that docker's engine runs; `programs` holds installation pages.

    Raises:
        CannotGoOn: a program is missing, or the engine does not respond.
    """
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        raise CannotGoOn("\n".join(f"{name} is not on the PATH; to install it: {programs[name]}" for name in missing))
    try:
        run("docker", "version", "--format", "{{.Server.Version}}")
    except CannotGoOn as failure:
        raise CannotGoOn(
            "docker is installed, but its engine does not respond: is it running?", failure.details
        ) from None


def run(*command: str) -> str:
    """The output of a program.

    Raises:
        CannotGoOn: it failed; the details are the last lines of its output.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        output = (done.stderr or done.stdout).splitlines()
        raise CannotGoOn(_failure(command, done.returncode), output[-TAIL:])
    return done.stdout


def show(*command: str) -> None:
    """Runs a program that shows its own progress.

    Raises:
        CannotGoOn: it failed, and has printed why.
    """
    if status := subprocess.run(command, check=False).returncode:
        raise CannotGoOn(_failure(command, status))


def kubectl(*arguments: str) -> str:
    """The output of kubectl for our cluster and namespace, not for the current context; see `run`."""
    return run(*_on_cluster(arguments))


def show_kubectl(*arguments: str) -> None:
    """Shows the output of kubectl for our cluster and namespace; see `show`."""
    show(*_on_cluster(arguments))


def _on_cluster(arguments: Sequence[str]) -> Sequence[str]:
    return ("kubectl", *arguments, f"--context={CONTEXT}", f"--namespace={NAMESPACE}")


def _failure(command: Sequence[str], status: int) -> str:
    return f"{command[0]} {command[1]} failed with exit status {status}"
