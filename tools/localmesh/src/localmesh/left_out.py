"""Services that `make up WITHOUT=NAME` leaves out: how the user starts one, and when it is there."""

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from typing import NoReturn

from localmesh.console import Console
from localmesh.mesh import Program
from localmesh.probe import Probe, accepts

INTERVAL = 0.5  # seconds between two looks whether it is there


def command(program: Program, environ: Mapping[str, str]) -> str:
    """A shell command that starts the program as `make up` would, for a shell with the variables `environ`."""
    foreign = sorted(name for name in environ if name.startswith("OTEL_") and name not in program.settings)
    unset = [part for name in foreign for part in ("-u", name)]
    variables = [f"{name}={quote(value)}" for name, value in program.settings.items()]
    return " ".join(["env", *unset, *variables, *map(quote, program.argv)])


def write_environment(program: Program, folder: Path) -> None:
    """Writes the program's settings to `NAME.env` in `folder`, for a debugger; they may hold a password."""
    text = "".join(f"{name}={value}\n" for name, value in program.settings.items())
    path = folder / f"{program.name}.env"
    path.touch(mode=0o600)
    path.write_text(text, encoding="utf-8")


def instructions(program: Program) -> str:
    """What the user does to run the program."""
    how = "Start it in a debugger (docs/debugging.md), or with:"
    return f"{program.name} is left out. {how}\n\n{command(program, os.environ)}\n"


async def watch(program: Program, console: Console) -> NoReturn:
    """Says when the user's process is ready and when it has ended, as often as that happens."""
    listens = accepts(program.port)
    while True:
        await _until(program.ready, answer=True)
        console.good(f"{program.name} is ready: the one that you started")
        await _until(listens, answer=False)  # at a breakpoint it is not ready, but listens
        console.say(f"{program.name} has ended: the one that you started")


async def _until(probe: Probe, *, answer: bool) -> None:
    while await probe() is not answer:  # noqa: ASYNC110 - another process sets no event of ours
        await asyncio.sleep(INTERVAL)
