"""Constant load on the edge, and an audit of the traces of its responses."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

import aiohttp

from tests.e2e.local_mesh import parent_of, spans_in, tags_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tests.e2e.local_mesh import Json, Mesh

KEPT, FRESH = 8, 3
"""The number of clients that keep their connection, and of those that open one for each request."""

ORDER_EVERY = 10
PRODUCT = "/v1/products/TEA-0004?strict=true"
ORDER = {"lines": [{"sku": "TEA-0005", "quantity": 1}]}

EXPORTED_SECONDS = 2.0
"""The usual time from a response to the export of its spans."""

MAX_TRACES = 50
"""The largest number of traces in one query."""

LOST_SECONDS = 25.0
"""After this time, which includes a drain and a stop, missing spans are lost."""


@dataclass(frozen=True)
class Answered:
    """One response: its method, its end (`time.monotonic`), and the content of its headers."""

    method: str
    status: int
    ended: float
    trace_id: str
    closing: bool
    kept: bool


@dataclass
class Load:
    """The responses and failures of the load so far; `refused` counts connections that were never established.

    Each client sends at most one request in `interval` seconds, because a saturated machine responds late, and starts
    pods slowly.
    `reads_only` sends no orders; `read` is the path to read; `at` is where to connect instead of the mesh's own
    address.
    """

    mesh: Mesh
    answers: list[Answered] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    refused: int = 0
    reads_only: bool = False
    read: str = PRODUCT
    at: str | None = None
    interval: float = 0.3

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Load]:
        """Loads the edge while the block runs, then waits for the requests in flight."""
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for _ in range(KEPT):
                group.create_task(self._client(stop, kept=True))
            for _ in range(FRESH):
                group.create_task(self._client(stop, kept=False))
            try:
                yield self
            finally:
                stop.set()

    async def until(self, answers: int) -> None:
        """Waits for this number of responses."""
        while len(self.answers) < answers:
            await asyncio.sleep(0.05)

    async def _client(self, stop: asyncio.Event, *, kept: bool) -> None:
        connector = aiohttp.TCPConnector(force_close=not kept)
        timeout = aiohttp.ClientTimeout(total=20)
        async with aiohttp.ClientSession(self.at or self.mesh.edge, connector=connector, timeout=timeout) as session:
            session._retry_connection = False  # a request lost with a closing connection counts as failed
            for number in count():
                if stop.is_set():
                    return
                due = time.monotonic() + self.interval
                if number % ORDER_EVERY or self.reads_only:
                    await self._ask(session, "GET", self.read, kept=kept)
                else:
                    await self._order(session, kept=kept)
                await asyncio.sleep(due - time.monotonic())

    async def _order(self, session: aiohttp.ClientSession, *, kept: bool) -> None:
        order = await self._ask(session, "POST", "/v1/orders", kept=kept, json=ORDER)
        if order:
            await self._ask(session, "DELETE", f"/v1/orders/{order['id']}", kept=kept)

    async def _ask(self, session: aiohttp.ClientSession, method: str, path: str, *, kept: bool, **options: Any) -> Json:
        headers = {"Idempotency-Key": str(uuid.uuid4())} if method == "POST" else {}
        try:
            async with session.request(method, path, headers=headers, **options) as response:
                text = await response.read()
        except aiohttp.ClientConnectorError:  # nothing was sent: the next attempt is the same request
            self.refused += 1
            return await self._ask(session, method, path, kept=kept, **options)
        except (aiohttp.ClientError, TimeoutError) as error:
            self.failures.append(f"{time.time():.1f} {method} {path}: {error!r}")
            return None
        if response.status >= 300:
            self.failures.append(f"{time.time():.1f} {method} {path}: {response.status} {text.decode()}")
            return None
        closing = response.headers.get("Connection", "").lower() == "close"
        trace_id = response.headers["X-Trace-Id"]
        self.answers.append(Answered(method, response.status, time.monotonic(), trace_id, closing, kept))
        return json.loads(text)


@dataclass
class Audit:
    """Looks up every response in the trace backend soon after its end, and counts the pods that served it."""

    load: Load
    missing: list[str] = field(default_factory=list)
    complete: int = 0
    served: list[tuple[float, str, str]] = field(default_factory=list)
    """The time of each RPC (`time.monotonic` of its request's end), its service and its pod."""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Audit]:
        """Audits while the block runs, and then until the last response."""
        finished = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._audit(finished))
            try:
                yield self
            finally:
                finished.set()

    def by_pod(self, service: str, since: float, until: float) -> Counter[str]:
        """The number of calls that each pod of a service served in an interval (`time.monotonic`)."""
        return Counter(pod for ended, name, pod in self.served if name == service and since <= ended < until)

    async def _audit(self, finished: asyncio.Event) -> None:
        looked_at = 0
        async with aiohttp.ClientSession() as session:
            while not finished.is_set() or looked_at < len(self.load.answers):
                batch = self.load.answers[looked_at : looked_at + MAX_TRACES]
                looked_at += len(batch)
                if batch:
                    await self._look_up(session, batch)
                else:
                    await asyncio.sleep(0.1)

    async def _look_up(self, session: aiohttp.ClientSession, batch: list[Answered]) -> None:
        ended = batch[-1].ended
        await asyncio.sleep(ended + EXPORTED_SECONDS - time.monotonic())
        while batch := self._incomplete(batch, found := await spans_by_trace(session, self.load.mesh, batch)):
            if time.monotonic() > ended + LOST_SECONDS:
                self.missing += [_description(answered, found.get(answered.trace_id, [])) for answered in batch]
                return
            await asyncio.sleep(1)

    def _incomplete(self, batch: list[Answered], found: dict[str, list[Json]]) -> list[Answered]:
        """Counts the responses whose traces are whole, and returns the others."""
        whole = [answered for answered in batch if is_whole(found.get(answered.trace_id, []), answered.method)]
        for answered in whole:
            self._count(answered, found[answered.trace_id])
        return [answered for answered in batch if answered not in whole]

    def _count(self, answered: Answered, spans: list[Json]) -> None:
        self.complete += 1
        for span in spans:
            if tags_of(span).get("span.kind") == "server":
                process = span["process"]
                pod = tags_of(process)["k8s.pod.name"]
                self.served.append((answered.ended, process["serviceName"], pod))


def _description(answered: Answered, spans: list[Json]) -> str:
    return f"{answered.method} {answered.trace_id}: {[span['operationName'] for span in spans]}"


async def spans_by_trace(session: aiohttp.ClientSession, mesh: Mesh, batch: list[Answered]) -> dict[str, list[Json]]:
    """The spans of the responses' traces, of those that the query API has."""
    ids = [("traceID", answered.trace_id) for answered in batch]
    async with session.get(f"{mesh.traces}/api/traces", params=ids) as response:
        answer = json.loads(await response.read())
    return {found["traceID"]: spans_in(found) for found in answer["data"] or []}


def is_whole(spans: list[Json], method: str) -> bool:
    """Whether a trace has its HTTP span, a span for each lookup or call of a backend, and a backend's below each.

    A lookup that shared its call has internal spans on both sides. A retried call has a server span for each attempt
    that arrived.
    """
    ids = {span["spanID"] for span in spans}
    parents = {parent_of(span) for span in spans}
    roots = {span["spanID"] for span in spans if parent_of(span) is None}
    calls = {span["spanID"] for span in spans if _is_call(span, roots)}
    enough = 1 if method == "DELETE" else 2
    return bool(roots) and parents - {None} <= ids and len(calls) >= enough and parents >= calls


def _is_call(span: Json, roots: set[str]) -> bool:
    """Whether this is the edge's span of a call, or of a lookup that shared one."""
    tags = tags_of(span)
    kind, is_rpc = tags.get("span.kind"), "rpc.response.status_code" in tags
    return is_rpc and (kind == "client" or (kind == "internal" and parent_of(span) in roots))


async def until(condition: Callable[[], Awaitable[bool]], seconds: float) -> float:
    """Waits for a condition and returns the seconds that it took; fails after `seconds`."""
    started = time.monotonic()
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.2)
    return time.monotonic() - started
