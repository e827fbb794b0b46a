"""Services that `make up WITHOUT=NAME` leaves out: how the user starts one, and when it is ready."""

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from typing import NoReturn

from localmesh.console import Console
from localmesh.probe import Probe, accepts
from localmesh.program import Program

INTERVAL = 0.5  # seconds between two probes
WITH_FILE = 'while IFS= read -r line; do export "$line"; done <"$0"; exec "$@"'
"""Runs a program with the variables of a file; both are the arguments of this shell code."""


def command(program: Program, folder: Path, environ: Mapping[str, str]) -> str:
    """A shell command that starts the program as `make up` does; `environ` holds the variables of that shell.

    It reads the settings from the program's file in `folder`, because they may hold a password, which neither the
    terminal nor the arguments of a process should show.
    """
    foreign = sorted(name for name in environ if name.startswith("OTEL_") and name not in program.settings)
    unset = [part for name in foreign for part in ("-u", name)]
    path = str(environment_file(program, folder).absolute())
    return " ".join(map(quote, ["env", *unset, "sh", "-c", WITH_FILE, path, *program.argv]))


def environment_file(program: Program, folder: Path) -> Path:
    """The file with the program's settings, a line `NAME=value` for each."""
    return folder / f"{program.name}.env"


def write_environment(program: Program, folder: Path) -> None:
    """Writes the program's settings to `NAME.env` in `folder`, for a debugger; they may hold a password."""
    text = "".join(f"{name}={value}\n" for name, value in program.settings.items())
    path = environment_file(program, folder)
    path.touch(mode=0o600)
    path.write_text(text, encoding="utf-8")


def instructions(program: Program, folder: Path) -> str:
    """Tells the user how to run the program, whose settings are in `folder`."""
    how = "Start it in a debugger (docs/debugging.md), or with:"
    return f"{program.name} is left out. {how}\n\n{command(program, folder, os.environ)}\n"


async def watch(program: Program, console: Console) -> NoReturn:
    """Prints each time when the user's process becomes ready and when it exits."""
    listens = accepts(program.port)
    while True:
        await _wait_for(program.ready, result=True)
        console.good(f"{program.name} is ready: it is the process that you started")
        await _wait_for(listens, result=False)  # at a breakpoint it is not ready, but it listens
        console.say(f"{program.name} has exited: it was the process that you started")


async def _wait_for(probe: Probe, *, result: bool) -> None:
    while await probe() is not result:  # noqa: ASYNC110 - another process sets no event of ours
        await asyncio.sleep(INTERVAL)
