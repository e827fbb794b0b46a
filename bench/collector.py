"""A collector of traces that accepts all and keeps nothing: `collector.py PORT`."""

from __future__ import annotations

import asyncio
import sys

import grpc

SERVICE = "opentelemetry.proto.collector.trace.v1.TraceService"


async def accept(_request: bytes, _context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
    """An empty ExportTraceServiceResponse."""
    return b""


async def main(port: int) -> None:
    """Serves until SIGTERM."""
    server = grpc.aio.server()
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(accept)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, {"Export": handler})])
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
