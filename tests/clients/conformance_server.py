"""The servers that Connect's conformance suite tests: its service behind what the edge has before the storefront.

`python -m tests.clients.conformance_server FOLDER`; FOLDER has the code that is generated from the suite's protos.
gRPC is served by grpc.aio, Connect and gRPC-Web by `meshkit.connect` on the HTTP server of the edge.
"""

# ruff: noqa: N802 - names are gRPC's
from __future__ import annotations

import asyncio
import base64
import signal
import struct
import sys
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import connectrpc
import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.status_pb2 import Status

from meshkit.connect import RpcPaths
from meshkit.connect.service import serve_rpcs
from meshkit.fastapi.problem_details import Problems
from meshkit.fastapi.server import listen_socket, serve
from meshkit.lifecycle import Stop
from meshkit.server.build import build_server
from meshkit.server.health import Health
from meshkit.service import always_ready
from meshkit.testing import SpanCapture, start_server

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.types import ASGIApp, Receive, Scope, Send

connectrpc.__path__.append(f"{sys.argv[1]}/connectrpc")
pb: Any = import_module("connectrpc.conformance.v1.service_pb2")
pb_grpc: Any = import_module("connectrpc.conformance.v1.service_pb2_grpc")
pb_connect: Any = import_module("connectrpc.conformance.v1.service_connect")
config: Any = import_module("connectrpc.conformance.v1.config_pb2")
compat: Any = import_module("connectrpc.conformance.v1.server_compat_pb2")

SERVICE = pb.DESCRIPTOR.services_by_name["ConformanceService"]
CODES = {code.value[0]: code for code in grpc.StatusCode}
BINARY = "-bin"
"""The end of the names of binary metadata, which gRPC has as bytes, and the suite as in HTTP, in base64."""


class ConformanceServicer(pb_grpc.ConformanceServiceServicer):  # type: ignore[misc] # it is generated later
    """Implements the unary methods of `service.proto`, but for the one that must be left out."""

    async def Unary(self, request: Any, context: Any) -> Any:
        """Does what the request says."""
        return pb.UnaryResponse(payload=await payload(request, context))

    async def IdempotentUnary(self, request: Any, context: Any) -> Any:
        """The same without side effects."""
        return pb.IdempotentUnaryResponse(payload=await payload(request, context))


async def payload(request: Any, context: Any) -> Any:
    """What the request says that the response has, and what it was. Aborts if it says so."""
    definition = request.response_definition
    await context.send_initial_metadata(to_metadata(definition.response_headers))
    trailing = to_metadata(definition.response_trailers)
    context.set_trailing_metadata(trailing)
    info = info_of(request, context)
    await asyncio.sleep(definition.response_delay_ms / 1000)
    if definition.HasField("error"):
        await abort(definition.error, info, context, trailing)
    return pb.ConformancePayload(data=definition.response_data, request_info=info)


def info_of(request: Any, context: Any) -> Any:
    """What the server knows of a request."""
    info = pb.ConformancePayload.RequestInfo(request_headers=from_metadata(context.invocation_metadata()))
    info.requests.add().Pack(request)
    if (seconds := context.time_remaining()) is not None:
        info.timeout_ms = int(seconds * 1000)
    call = getattr(context, "http_call", None)
    if call and call.asgi_scope["method"] == "GET":
        for name, value in parse_qsl(call.asgi_scope["query_string"].decode()):
            info.connect_get_info.query_params.add(name=name, value=[value])
    return info


async def abort(error: Any, info: Any, context: Any, trailing: tuple[tuple[str, str | bytes], ...]) -> None:
    """Ends the call with an error and, in its details, what the server knows of the request."""
    packed = AnyMessage()
    packed.Pack(info)
    status = Status(code=error.code, message=error.message, details=[*error.details, packed])
    details = ("grpc-status-details-bin", status.SerializeToString())
    await context.abort(CODES[error.code], error.message, (*trailing, details))


def to_metadata(headers: Iterable[Any]) -> tuple[tuple[str, str | bytes], ...]:
    """Metadata of gRPC."""
    pairs = ((header.name.lower(), value) for header in headers for value in header.value)
    return tuple((name, base64.b64decode(value + "===") if name.endswith(BINARY) else value) for name, value in pairs)


def from_metadata(metadata: Iterable[tuple[str, str | bytes]]) -> list[Any]:
    """Headers of the suite."""
    values: dict[str, list[str]] = {}
    for name, value in metadata:
        text = base64.b64encode(value).decode().rstrip("=") if isinstance(value, bytes) else value
        values.setdefault(name, []).append(text)
    return [pb.Header(name=name, value=each) for name, each in values.items()]


async def main() -> None:
    """Serves until SIGTERM what the suite asks for on standard input."""
    (size,) = struct.unpack(">I", sys.stdin.buffer.read(4))
    request = compat.ServerCompatRequest.FromString(sys.stdin.buffer.read(size))
    stop = Stop()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.request)
    await (serve_grpc if request.protocol == config.PROTOCOL_GRPC else serve_http)(request.message_receive_limit, stop)


def report(host: str, port: int) -> None:
    """Tells the suite where the server listens."""
    response = compat.ServerCompatResponse(host=host, port=port).SerializeToString()
    sys.stdout.buffer.write(struct.pack(">I", len(response)) + response)
    sys.stdout.buffer.flush()


async def serve_http(limit: int, stop: Stop) -> None:
    """Serves Connect and gRPC-Web, as the edge does."""
    listener = listen_socket("127.0.0.1:0")
    app = RpcPaths(not_found, service=SERVICE.full_name, build=partial(build_rpcs, limit))
    report(*listener.getsockname())
    await serve(app, problems=Problems(domain="test.example"), listener=listener, stop=stop, drain_seconds=0)


def build_rpcs(limit: int) -> ASGIApp:
    """The ASGI app of the service."""
    return serve_rpcs(
        SERVICE,
        ConformanceServicer(),
        partial(pb_connect.ConformanceServiceASGIApplication, read_max_bytes=limit or None),
        telemetry=SpanCapture("conformance").telemetry,
        max_pending=100,
    )


async def not_found(scope: Scope, receive: Receive, send: Send) -> None:
    """Serves all other paths."""
    await send({"type": "http.response.start", "status": 404, "headers": []})
    await send({"type": "http.response.body"})


async def serve_grpc(limit: int, stop: Stop) -> None:
    """Serves gRPC."""
    server = build_server(
        services={SERVICE.full_name: partial(pb_grpc.add_ConformanceServiceServicer_to_server, ConformanceServicer())},
        health=Health(SERVICE.full_name, always_ready),
        telemetry=SpanCapture("conformance").telemetry,
        options=[("grpc.max_receive_message_length", limit or -1)],
    )
    async with start_server(server) as address:
        host, _, port = address.rpartition(":")
        report(host, int(port))
        await stop.requested.wait()


if __name__ == "__main__":
    asyncio.run(main())
