"""One call to make and observe, and the group of calls that share a server and a channel."""

from __future__ import annotations

import itertools
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from opentelemetry.trace import SpanKind

from meshkit.client.channel import open_channel
from meshkit.telemetry.spans import TracerProvider
from tests.conformance.callers import Caller
from tests.conformance.handlers import Script, handler
from tests.conformance.observing import Observation, spans, until
from tests.meshkit.echo import SERVICE, Echo, build_echo, echo

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    import grpc
    from opentelemetry.sdk import trace as sdk

    from meshkit.server.health import Health
    from meshkit.telemetry import Instrumentation
    from meshkit.testing import SpanCapture
    from tests.conformance.observing import Span
    from tests.conformance.table import Ending, Outcome, Row

LIMIT = 60.0
"""The channels' limit of a call, in seconds: above every deadline of the table."""


@dataclass(frozen=True)
class Cell:
    """One call to make: its row, its column, the instrumentation, and seconds to wait for the expected events.

    `provider` makes the spans: meshkit's or the SDK's. `build` makes the server, see `echo`.
    """

    row: Row
    ending: Ending
    instrumentation: Instrumentation
    patience: float
    provider: type[sdk.TracerProvider] = TracerProvider
    build: Callable[..., tuple[grpc.aio.Server, Health]] = build_echo

    @property
    def outcome(self) -> Outcome:
        return self.ending.outcome

    @property
    def is_never_sent(self) -> bool:
        """Whether contrib's first `write` waits for the end of the call, which so ends at its deadline."""
        return self.instrumentation == "contrib" and self.row.caller == "write, awaits"

    @property
    def is_never_awaited(self) -> bool:
        """Whether contrib fails because the handler is a coroutine that writes its responses."""
        return self.instrumentation == "contrib" and self.row.handler.endswith("context.write")

    @property
    def is_alone(self) -> bool:
        """Whether it has its own process: grpc.aio's `Channel.close` looks at all tasks, and fails on contrib's."""
        return self.instrumentation == "contrib" and self.ending.caller == "channel.close"

    @property
    def timeout(self) -> float:
        """The deadline of the call, in seconds."""
        return min(self.ending.timeout, 5) if self.is_never_sent else self.ending.timeout

    @property
    def method(self) -> str:
        return self.row.method

    def caller(self, channel: Any) -> Caller:
        open_end = self.ending.handler != "answers"
        requests = (
            itertools.repeat(b"1") if self.ending.caller == "writes on" else (b"1",) if open_end else (b"1", b"2")
        )
        return Caller(self.row, channel, timeout=self.timeout, requests=requests, open_end=open_end)


Group: TypeAlias = "Sequence[Cell]"
"""Cells of one ending, instrumentation, provider and kind of server, whose calls are made at once: see `scenes.py`."""

ALONE = {"channel.close", "server.stop", "is early"}
"""Callers whose calls share no server and no channel.

They close them; or the calls arrive while nobody takes them, and of those gRPC's core keeps only the first.
"""


@dataclass(frozen=True)
class Served:
    """The server and the channel of a cell, and what its handler does."""

    service: Echo
    script: Script


@asynccontextmanager
async def serve(group: Group) -> AsyncIterator[dict[str, Served]]:
    """Serves the methods of a group; yields them by name."""
    served: dict[str, Served] = {}
    async with AsyncExitStack() as running:
        for cells in [[cell] for cell in group] if group[0].ending.caller in ALONE else [group]:
            scripts = {cell.method: Script(cell.ending.handler) for cell in cells}
            handlers: dict[str, Any] = {cell.method: handler(cell.row, scripts[cell.method]) for cell in cells}
            instrumentation, provider, build = cells[0].instrumentation, cells[0].provider, cells[0].build
            service = await running.enter_async_context(
                echo(instrumentation=instrumentation, provider=provider, build=build, limit=LIMIT, **handlers)
            )
            served |= {method: Served(service, script) for method, script in scripts.items()}
        yield served


def connect(address: str, client: SpanCapture) -> Any:
    return open_channel(address, service=SERVICE, repeatable=(), limit=LIMIT, telemetry=client.telemetry)


async def observe(cell: Cell, ended: str, parent: Span, client: SpanCapture, served: Served | None) -> Observation:
    """The observation after every expected event, or after the patience."""
    wanted, script = cell.outcome, served.script if served else Script("")
    client_is_here = cell.ending.caller not in {"is killed", "is early"}

    def all_has_happened() -> bool:
        clients, servers = ended_spans(cell, client, served)
        return (
            len(clients) >= (client_is_here and wanted.client is not None)
            and len(servers) >= (wanted.server is not None)
            and (not script.started.is_set() or script.over.is_set())
        )

    await until(all_has_happened, cell.patience)
    return Observation(
        ended,
        parent,
        *ended_spans(cell, client, served),
        started=script.started.is_set(),
        budget=script.budget,
        cancelled=script.cancelled,
        remaining=script.remaining,
    )


def count_spans(cell: Cell, observation: Observation, client: SpanCapture, served: Served | None) -> Observation:
    """Adds the numbers of spans after the teardown."""
    clients, servers = ended_spans(cell, client, served)
    return replace(observation, in_the_end=(len(clients), len(servers)))


def ended_spans(cell: Cell, client: SpanCapture, served: Served | None) -> tuple[tuple[Span, ...], tuple[Span, ...]]:
    """The ended spans of the client and of the server."""
    servers = spans(served.service.server, SpanKind.SERVER, cell.method) if served else ()
    return spans(client, SpanKind.CLIENT, cell.method), servers
