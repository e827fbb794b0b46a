"""tracebox as a process of its own, on ports that were free."""

from __future__ import annotations

import os
import sys
from asyncio.subprocess import PIPE, Process, create_subprocess_exec
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp
import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
FREE = "127.0.0.1:0"


@dataclass(frozen=True)
class Tracebox:
    """A running tracebox, and a client for each of its ports."""

    process: Process
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
        async with self.http.get(path) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()

    async def data(self, path: str) -> Any:
        return (await self.get(path))["data"]


async def start(**variables: str) -> Process:
    settings = {"TRACEBOX_OTLP_LISTEN": FREE, "TRACEBOX_QUERY_LISTEN": FREE, **variables}
    return await create_subprocess_exec(
        sys.executable, "-m", "tracebox", env={**os.environ, **settings}, stdout=PIPE, stderr=PIPE
    )


@asynccontextmanager
async def running(**variables: str) -> AsyncIterator[Tracebox]:
    process = await start(**variables)
    try:
        assert process.stdout
        words = (await process.stdout.readline()).decode().split()
        otlp, url = words[3].rstrip(","), words[-1]
        async with grpc.aio.insecure_channel(otlp) as channel, aiohttp.ClientSession(url) as http:
            yield Tracebox(process, otlp, url, channel, http)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()
