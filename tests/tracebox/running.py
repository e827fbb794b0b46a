"""Runs tracebox as a process, on free ports."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp
import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from tests import service_process

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.service_process import ServiceProcess

EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"


@dataclass(frozen=True)
class Tracebox:
    """A running tracebox, and a client for each of its ports."""

    process: ServiceProcess
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


@asynccontextmanager
async def running(**settings: str) -> AsyncIterator[Tracebox]:
    """Runs tracebox on free ports until the end of the block; `settings` have names without their prefix."""
    async with service_process.running("tracebox", **settings) as process:
        words = (await process.line("traces on")).split()
        otlp, url = words[3].rstrip(","), words[-1]
        async with grpc.aio.insecure_channel(otlp) as channel, aiohttp.ClientSession(url) as http:
            yield Tracebox(process, otlp, url, channel, http)
