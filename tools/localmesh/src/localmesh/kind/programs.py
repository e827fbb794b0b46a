"""The programs that the work is left to: docker, kind and kubectl, as the user has them."""

import shutil
import subprocess
from collections.abc import Mapping, Sequence

CLUSTER = "aiomesh"
CONTEXT = f"kind-{CLUSTER}"  # the name that kind gives to the context of a cluster
TAIL = 20  # lines of a failed program's output that are shown

DOCKER = {"docker": "https://docs.docker.com/get-started/get-docker/"}
KIND = {"kind": "https://kind.sigs.k8s.io/docs/user/quick-start/#installation"}
KUBECTL = {"kubectl": "https://kubernetes.io/docs/tasks/tools/#kubectl"}


class CannotGoOn(Exception):
    """What keeps the cluster from being made or used, for the user to mend; `details` are lines to show below it."""

    def __init__(self, text: str, details: Sequence[str] = ()) -> None:
        super().__init__(text)
        self.details = details


def check(programs: Mapping[str, str]) -> None:
    """Sees that programs, each with the page that tells how to install it, are there and docker's engine answers.

    Raises:
        CannotGoOn: naming every one that is missing.
    """
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        raise CannotGoOn("\n".join(f"{name} is not on the PATH; to install it: {programs[name]}" for name in missing))
    try:
        run("docker", "version", "--format", "{{.Server.Version}}")
    except CannotGoOn as failure:
        raise CannotGoOn("docker is there, but its engine does not answer: is it started?", failure.details) from None


def run(*command: str, given: str | None = None) -> str:
    """Runs a program with `given` as its input; what it printed.

    Raises:
        CannotGoOn: it failed; the details are the last lines of what it said.
    """
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).splitlines()
        raise CannotGoOn(f"{command[0]} {command[1]} failed with exit status {done.returncode}", said[-TAIL:])
    return done.stdout


def show(*command: str) -> None:
    """Runs a program that shows its own progress.

    Raises:
        CannotGoOn: it failed, and has said why.
    """
    status = subprocess.run(command, check=False).returncode
    if status:
        raise CannotGoOn(f"{command[0]} {command[1]} failed with exit status {status}")


def kubectl(*arguments: str, given: str | None = None) -> str:
    """Runs kubectl on our cluster, whichever is current; see `run`."""
    return run("kubectl", f"--context={CONTEXT}", *arguments, given=given)
