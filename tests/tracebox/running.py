"""Runs tracebox on free ports, in this process or in one of its own."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp
import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from meshkit import addresses
from meshkit.testing import start_server
from tests import service_process
from tests.service_process import FREE
from tracebox.app import http_server
from tracebox.receiver import build_receiver
from tracebox.settings import Settings
from tracebox.store import TraceStore

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator

    import uvicorn

    from tests.service_process import ServiceProcess

EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"


@dataclass(frozen=True)
class Tracebox:
    """A running tracebox, and a client for each of its ports."""

    otlp: str
    url: str
    channel: grpc.aio.Channel
    http: aiohttp.ClientSession

    async def export(
        self, request: ExportTraceServiceRequest | bytes, compression: grpc.Compression | None = None
    ) -> ExportTraceServiceResponse:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, ExportTraceServiceResponse]
        call = self.channel.unary_unary(EXPORT, response_deserializer=ExportTraceServiceResponse.FromString)
        encoded = request if isinstance(request, bytes) else request.SerializeToString()
        response: ExportTraceServiceResponse = await call(encoded, timeout=10, compression=compression)
        return response

    async def get(self, path: str) -> Any:
        async with self.http.get(path) as response:
            assert response.status == 200, await response.text()
            return await response.json()

    async def data(self, path: str) -> Any:
        return (await self.get(path))["data"]


@dataclass(frozen=True)
class TraceboxProcess(Tracebox):
    """A tracebox that is a process of its own."""

    process: ServiceProcess


@asynccontextmanager
async def serving(**settings: Any) -> AsyncIterator[Tracebox]:
    """Serves an empty tracebox in this process until the end of the block."""
    configured = Settings(otlp_listen=FREE, query_listen=FREE, **settings)
    store = TraceStore(configured.max_spans, configured.max_bytes)
    server = await asyncio.to_thread(http_server, store, configured)  # it reads the files of the page
    query_socket = addresses.listen(FREE)
    url = f"http://127.0.0.1:{query_socket.getsockname()[1]}"
    async with (
        start_server(build_receiver(store)) as otlp,
        _serving_http(server, query_socket),
        grpc.aio.insecure_channel(otlp) as channel,
        aiohttp.ClientSession(url) as http,
    ):
        yield Tracebox(otlp, url, channel, http)


@asynccontextmanager
async def _serving_http(server: uvicorn.Server, listening: socket.socket) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        group.create_task(server.serve([listening]))
        try:
            yield
        finally:
            server.should_exit = True


@asynccontextmanager
async def running(**settings: str) -> AsyncIterator[TraceboxProcess]:
    """Runs tracebox as a process until the end of the block; `settings` have names without their prefix."""
    async with service_process.running("tracebox", **settings) as process:
        words = (await process.line("traces on")).split()
        otlp, url = words[3].rstrip(","), words[-1]
        async with grpc.aio.insecure_channel(otlp) as channel, aiohttp.ClientSession(url) as http:
            yield TraceboxProcess(otlp, url, channel, http, process)
