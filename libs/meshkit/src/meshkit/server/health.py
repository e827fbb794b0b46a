"""grpc.health.v1, from a check of a service's dependencies.

A service is NOT_SERVING until its first check passes, then follows its check, and stays NOT_SERVING once draining
starts. The name `liveness` reports only that the event loop runs: a liveness probe must not depend on the check, or a
database outage restarts every replica. https://github.com/grpc/grpc/blob/master/doc/health-checking.md
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from grpc_health.v1 import health as grpc_health
from grpc_health.v1 import health_pb2, health_pb2_grpc

from meshkit.errors import describe
from meshkit.server.closing import Closing

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import grpc

log = logging.getLogger("meshkit.health")

LIVENESS = "liveness"
RETRY_SECONDS = 0.5
"""Seconds until the next check after a failed one, so a service that can serve again reports it soon."""
TURNS = 20
"""Turns of the event loop that a check has at least, so a loop that is busy for seconds does not fail it."""

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Health:
    """The health of one service of this process.

    Args:
        service: the full name of the service; the empty name (the whole server) has the same status.
        check: raises if the service cannot serve now.
        interval: seconds between two checks.
        timeout: seconds after which a check counts as failed.
        start_timeout: the same for the first check, which may migrate and seed a database.

    Attributes:
        closing: refuses calls when the server stops.
    """

    def __init__(
        self,
        service: str,
        check: Callable[[], Awaitable[None]],
        *,
        interval: float = 2.0,
        timeout: float = 1.0,
        start_timeout: float = 10.0,
    ) -> None:
        self._service = service
        self._check = check
        self._interval = interval
        self._timeout = timeout
        self._start_timeout = start_timeout
        self._servicer = grpc_health.aio.HealthServicer()
        self._last_result: str | None = None
        self._draining = False
        self.closing = Closing()

    def add_to(self, server: grpc.aio.Server) -> None:
        """Adds grpc.health.v1 to the server."""
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)

    def service_names(self) -> list[str]:
        """The service names for reflection."""
        return [grpc_health.SERVICE_NAME]

    async def watch(self) -> None:
        """Runs the check until cancelled."""
        await self._servicer.set(LIVENESS, SERVING)
        await self._publish(NOT_SERVING)
        limit = self._start_timeout
        while True:
            failure = await self._run_check(limit)
            limit = self._timeout
            await self._set(failure)
            await asyncio.sleep(min(self._interval, RETRY_SECONDS) if failure else self._interval)

    async def drain(self) -> None:
        """Makes the service NOT_SERVING permanently; `liveness` stays SERVING."""
        self._draining = True
        await self._publish(NOT_SERVING)

    async def _run_check(self, limit: float) -> Exception | None:
        try:
            await _within(limit, self._check())
        except Exception as error:  # noqa: BLE001 - after any error the service cannot serve
            return error
        return None

    async def _set(self, failure: Exception | None) -> None:
        """Publishes and logs the result of a check when it changes."""
        result = "" if failure is None else describe(failure)
        if result == self._last_result or self._draining:
            return
        self._last_result = result
        if failure:
            log.warning("%s is NOT_SERVING: %s", self._service, result)
        else:
            log.info("%s is SERVING", self._service)
        await self._publish(NOT_SERVING if failure else SERVING)

    async def _publish(self, status: int) -> None:
        for name in (self._service, ""):
            await self._servicer.set(name, status)


async def _within(seconds: float, check: Awaitable[None]) -> None:
    """Waits for a check for `seconds`, and for TURNS of the event loop: a busy loop delays its steps, too."""
    task = asyncio.ensure_future(check)
    try:
        for _ in range(TURNS):
            await asyncio.wait({task}, timeout=seconds / TURNS)
            if task.done():
                return task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    raise TimeoutError(f"its check took longer than {seconds:g} s")
