"""What localmesh knows about a gateway: how its program is found and started, and the files with its addresses.

Its configuration is in `deploy/gateways/NAME`, the same here and on a cluster. It names no address: those are in the
files that `Gateway.files` returns, which stand beside the configuration when the program runs.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

from localmesh.services import ROOT

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path

CONFIGURATIONS = ROOT / "deploy" / "gateways"
INSTALLED = ROOT / ".tools" / "gateways"
LOCK = "requirements.lock"


@dataclass(frozen=True)
class Addresses:
    """Where a gateway listens, and where its edges do.

    Attributes:
        listen: host and port for HTTPS.
        rest: host and port of each edge, for HTTP/1.1: REST, Connect and gRPC-Web.
        grpc: host and port of each edge, for gRPC without TLS.
        cert: the file of the certificate.
        key: the file of its private key.
        traces: host and port of the trace backend, for OTLP over gRPC.
        hosts: the names that are served; any if there are none.
    """

    listen: str
    rest: tuple[str, ...]
    grpc: tuple[str, ...]
    cert: Path
    key: Path
    traces: str
    hosts: tuple[str, ...] = ()

    @property
    def port(self) -> int:
        """The port that the gateway listens on."""
        return int(self.listen.rpartition(":")[2])


def _no_arguments(_folder: Path, _addresses: Addresses) -> tuple[str, ...]:
    return ()


async def _no_drain(_folder: Path) -> None:
    pass


def _no_variables(_folder: Path, _addresses: Addresses) -> dict[str, str]:
    return {}


@dataclass(frozen=True)
class Gateway:
    """One gateway.

    Attributes:
        name: that of its folder in `deploy/gateways`, and of its program.
        program: a pattern of the program's path among the packages of its lock.
        files: the text of each file with addresses, by the file's name, in a folder.
        arguments: those of the program, whose configuration and addresses are in a folder.
        environment: variables that configure the program.
        stop_signal: what lets the program finish its requests.
        drain: what finishes them before that signal, if the signal does not.
    """

    name: str
    program: str
    files: Callable[[Path, Addresses], Mapping[str, str]]
    arguments: Callable[[Path, Addresses], tuple[str, ...]] = _no_arguments
    environment: Callable[[Path, Addresses], Mapping[str, str]] = _no_variables
    stop_signal: signal.Signals = signal.SIGTERM
    drain: Callable[[Path], Awaitable[None]] = _no_drain

    @property
    def configuration(self) -> Path:
        """The folder of its configuration and its lock."""
        return CONFIGURATIONS / self.name

    @property
    def installed(self) -> Path:
        """The folder into which `make up` installs its program."""
        return INSTALLED / self.name

    def command(self, folder: Path, addresses: Addresses) -> tuple[str, ...]:
        """The path of the installed program, and its arguments."""
        return (str(self.installed / self.name), *self.arguments(folder, addresses))
