"""The OTLP/gRPC port: `opentelemetry.proto.collector.trace.v1.TraceService`.

The method is registered without the generated servicer. With it, grpc responds INTERNAL to a request that it cannot
decode, and exporters regard that as an error of the server. Here the response is INVALID_ARGUMENT.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeAlias

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from tracebox.repair import repair

if TYPE_CHECKING:
    from tracebox.store import TraceStore

_SERVICE = "opentelemetry.proto.collector.trace.v1.TraceService"
_MAX_STREAMS, _MAX_MESSAGE_BYTES = 15, 4 * 1024 * 1024
"""Together less than 64 MB for each connection. Other collectors accept 4 MiB, too. An exporter sends one request at a
time; a larger one is RESOURCE_EXHAUSTED, with its size and the limit in the message."""

_OPTIONS = (
    ("grpc.so_reuseport", 0),
    ("grpc.max_concurrent_streams", _MAX_STREAMS),
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
)
_Context: TypeAlias = grpc.aio.ServicerContext[bytes, ExportTraceServiceResponse]


class TraceReceiver:
    """Adds exported spans to the store."""

    def __init__(self, store: TraceStore) -> None:
        self._store = store

    async def export(self, request: bytes, context: _Context) -> ExportTraceServiceResponse:
        """Stores the spans of an encoded ExportTraceServiceRequest.

        Rejected spans make it a partial success. So do broken values in accepted spans, with a message only.
        """
        try:
            decoded, warning = ExportTraceServiceRequest.FromString(request), ""
        except DecodeError as error:
            decoded, warning = await _repaired(request, context), f"broken values were replaced: {error}"
        rejected = self._store.add(decoded)
        if not rejected.spans and not warning:
            return ExportTraceServiceResponse()
        message = "; ".join([*rejected.reasons, *filter(None, [warning])])
        partial = ExportTracePartialSuccess(rejected_spans=rejected.spans, error_message=message)
        return ExportTraceServiceResponse(partial_success=partial)


async def _repaired(request: bytes, context: _Context) -> ExportTraceServiceRequest:
    try:
        repaired = await asyncio.to_thread(repair, ExportTraceServiceRequest.DESCRIPTOR, request)
        return ExportTraceServiceRequest.FromString(repaired)
    except DecodeError as error:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"not an ExportTraceServiceRequest: {error}")


def build_receiver(store: TraceStore) -> grpc.aio.Server:
    """A server that has no address yet; the caller adds one, starts it and stops it."""
    server = grpc.aio.server(options=_OPTIONS)
    export: grpc.RpcMethodHandler[bytes, ExportTraceServiceResponse] = grpc.unary_unary_rpc_method_handler(
        TraceReceiver(store).export,
        response_serializer=ExportTraceServiceResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(_SERVICE, {"Export": export})])
    return server
