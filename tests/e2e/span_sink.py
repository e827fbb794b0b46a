"""A trace backend that writes spans to a file, for tests that read them after the mesh has stopped.

It runs instead of Jaeger: `span_sink.py FILE --config yaml:{…}` takes its two addresses from Jaeger's configuration,
receives OTLP/gRPC, and writes one line `trace_id span_name` for each span.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

if TYPE_CHECKING:
    from io import TextIOWrapper


class Sink(trace_service_pb2_grpc.TraceServiceServicer):
    """Receives spans, and writes them to the file before it responds."""

    def __init__(self, file: TextIOWrapper) -> None:
        self._file = file

    async def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 - the name in the proto
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                self._file.writelines(f"{span.trace_id.hex()} {span.name}\n" for span in scope.spans)
        self._file.flush()
        return trace_service_pb2.ExportTraceServiceResponse()


async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Responds to readiness probes with 200."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
    await writer.drain()
    writer.close()


async def main(path: Path, config: Any) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    server = grpc.aio.server()
    with path.open("a") as file:
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Sink(file), server)  # type: ignore[no-untyped-call]
        server.add_insecure_port(config["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"])
        await server.start()
        host, _, port = config["extensions"]["jaeger_query"]["http"]["endpoint"].rpartition(":")
        async with await asyncio.start_server(respond, host, int(port)):
            await stop.wait()
        await server.stop(5)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), json.loads(sys.argv[3].removeprefix("yaml:"))))
