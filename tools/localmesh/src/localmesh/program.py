"""What localmesh knows about a program that it runs."""

from __future__ import annotations

import signal
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path

    from localmesh.probe import Probe


async def _no_drain() -> None:
    pass


@dataclass(frozen=True)
class Program:
    """One process of the mesh: its command, its address and its readiness probe."""

    name: str
    argv: tuple[str, ...]
    """The absolute path of the program, and its arguments."""
    environment: Mapping[str, str]
    address: str
    ready: Probe
    settings: Mapping[str, str] = field(default_factory=dict)
    """The part of the environment that configures this program."""
    sources: tuple[Path, ...] = ()
    """The folders whose changes restart the program."""
    stop_signal: signal.Signals = signal.SIGTERM
    """The signal that lets the program finish what it has begun, and exit."""
    drain: Callable[[], Awaitable[None]] = _no_drain
    """Finishes that before the signal, for a program whose signal does not."""

    @property
    def port(self) -> int:
        """The port of its address."""
        return int(self.address.rpartition(":")[2])
