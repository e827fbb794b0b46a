"""A localmesh of fake children as a subprocess, used as its user does: by its output, signals and exit status."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import psutil

from tests.ports import held_port

DRIVER = Path(__file__).with_name("driver.py")


CHILD = Path(__file__).with_name("child.py")


def fake(name: str, *arguments: str, port: int | None = None, sources: Sequence[Path] = ()) -> dict[str, object]:
    """A child with this name, on a free port, with arguments of `child.py`; see `driver.Fake` for `sources`."""
    folders = list(map(str, sources))
    return {"name": name, "port": port or held_port(), "arguments": list(arguments), "sources": folders}


@dataclass
class MeshProcess:
    """Starts when created, in its own session; the end of the `with` kills all its processes."""

    directory: Path
    stages: list[list[dict[str, object]]]
    patience: dict[str, float] = field(default_factory=dict)
    printed: list[str] = field(default_factory=list)
    started: list[psutil.Process] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(DRIVER), str(self.directory / "state"), self._specification()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def _specification(self) -> str:
        return json.dumps({"stages": self.stages, "patience": self.patience})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        left = {*self.started, *self.children()}
        if self.process.poll() is None:
            self.process.kill()
        for child in left:
            if child.is_running():
                child.kill()
        if self.process.stdout and not self.process.stdout.closed:
            self.process.communicate()

    def children(self) -> list[psutil.Process]:
        if self.process.poll() is not None:
            return []
        return psutil.Process(self.process.pid).children()

    def child(self, name: str) -> psutil.Process:
        """The process of a child, by its pid in the table."""
        row = next(line for line in self.printed if re.match(rf"\s*{name}\s+127", line))
        return psutil.Process(int(row.split()[2]))

    def read_until(self, text: str) -> str:
        """Reads the output up to a line with `text`, and returns that line."""
        assert self.process.stdout
        for line in self.process.stdout:
            self.printed.append(line.rstrip("\n"))
            if text in line:
                return line
        raise AssertionError(f"{text!r} was not printed, but:\n" + "\n".join(self.printed))

    def wait_until_ready(self) -> Self:
        self.read_until("WELCOME")
        self.started = self.children()
        return self

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        """Reads the output to its end; returns the exit status."""
        rest, _ = self.process.communicate()
        self.printed += rest.splitlines()
        return self.process.returncode

    @property
    def text(self) -> str:
        return "\n".join(self.printed)

    @property
    def journal(self) -> list[str]:
        return (self.directory / "journal").read_text().splitlines()
