"""Finds the processes that hold a file or a socket open, from /proc; on other systems than Linux it finds none."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from localmesh.console import escape

COMMAND_WIDTH = 60


@dataclass(frozen=True)
class Holder:
    """A process and the beginning of its command line."""

    pid: int
    command: str

    def __str__(self) -> str:
        return f"pid {self.pid} ({self.command})"


def holders(link: str) -> Iterator[Holder]:
    """The processes with a descriptor that /proc/PID/fd shows as `link`: a path, or `socket:[INODE]`.

    Processes of other users are not found.
    """
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has exited, or belongs to another user
            if any(_target(descriptor) == link for descriptor in (process / "fd").iterdir()):
                yield Holder(int(process.name), _command(process))


def _target(descriptor: Path) -> str:
    with suppress(FileNotFoundError):  # closed since it was listed
        return str(descriptor.readlink())
    return ""


def _command(process: Path) -> str:
    command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    command = escape(command)  # also newlines, which would look like lines of our own
    return command if len(command) <= COMMAND_WIDTH else command[:COMMAND_WIDTH] + "…"
