"""The OTLP/gRPC port: `opentelemetry.proto.collector.trace.v1.TraceService`.

The method is registered without the generated servicer, because grpc fails a request that it cannot
decode with INTERNAL, which exporters take for the server's fault; here it is INVALID_ARGUMENT.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

if TYPE_CHECKING:
    from tracebox.store import TraceStore

_SERVICE = "opentelemetry.proto.collector.trace.v1.TraceService"
_MAX_MESSAGE_BYTES = 16 * 1024 * 1024
_Context: TypeAlias = grpc.aio.ServicerContext[bytes, ExportTraceServiceResponse]


class TraceReceiver:
    """Puts exported spans into the store."""

    def __init__(self, store: TraceStore) -> None:
        self._store = store

    async def export(self, request: bytes, context: _Context) -> ExportTraceServiceResponse:
        """Stores an encoded ExportTraceServiceRequest; rejected spans are a partial success."""
        try:
            rejected = self._store.add(ExportTraceServiceRequest.FromString(request))
        except DecodeError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"not an ExportTraceServiceRequest: {error}")
        if not rejected.spans:
            return ExportTraceServiceResponse()
        message = "; ".join(rejected.reasons)
        partial = ExportTracePartialSuccess(rejected_spans=rejected.spans, error_message=message)
        return ExportTraceServiceResponse(partial_success=partial)


def build_receiver(store: TraceStore) -> grpc.aio.Server:
    """A server without an address yet; the caller starts and stops it."""
    server = grpc.aio.server(
        options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES)]
    )
    export: grpc.RpcMethodHandler[bytes, ExportTraceServiceResponse] = grpc.unary_unary_rpc_method_handler(
        TraceReceiver(store).export,
        response_serializer=ExportTraceServiceResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(_SERVICE, {"Export": export})])
    return server
