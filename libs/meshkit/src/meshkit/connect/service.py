"""The ASGI app of a service: connectrpc reads and writes the messages, `meshkit.server` surrounds the handlers.

trace_calls             around all that follows: the span and the status of every call, also of a malformed one
HttpCall.refused        what connectrpc would not answer in the caller's protocol
connectrpc              protocols, codecs, compression, the deadline, and the cancellation when the client disconnects
admission, errors, deadlines    as around the handlers of a gRPC server
the servicer            that of the gRPC server
"""

from __future__ import annotations

import asyncio
import re
from contextvars import ContextVar
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import grpc
from google.protobuf.descriptor_pb2 import MethodOptions
from opentelemetry.context import Context as TraceContext
from opentelemetry.propagate import extract
from opentelemetry.trace import Link

from meshkit.connect.call import HttpCall, connect_error
from meshkit.connect.metadata import to_headers
from meshkit.errors import Unimplemented
from meshkit.fastapi.own_traces import CALLER
from meshkit.fastapi.prefix import route_path
from meshkit.server.admission import admission
from meshkit.server.context import CallContext
from meshkit.server.deadlines import deadlines
from meshkit.server.errors import errors
from meshkit.server.tracing import carrier, trace_calls
from meshkit.telemetry import semconv

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from connectrpc.request import RequestContext
    from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
    from starlette.types import ASGIApp, Receive, Scope, Send

    from meshkit.server.tracing import Origin
    from meshkit.server.types import Behavior, Concern
    from meshkit.telemetry.provider import Telemetry

    Context = CallContext[Any, Any]

SYSTEMS = (semconv.CONNECT, semconv.GRPC)

_current: ContextVar[Context] = ContextVar("meshkit_http_call")


def serve_rpcs(
    service: ServiceDescriptor,
    servicer: object,
    application: Callable[[Any], Any],
    *,
    telemetry: Telemetry,
    max_pending: int,
) -> ASGIApp:
    """The ASGI app of a service.

    Args:
        service: from the generated module. All of its methods have one request and one response.
        servicer: that of a gRPC server.
        application: makes connectrpc's application of a service; the generated class.
        telemetry: whose spans the calls make.
        max_pending: the most unfinished calls.
    """
    concerns = [admission(max_pending), errors, deadlines]
    functions = {_local_name(method.name): _function(method, servicer, concerns) for method in service.methods}
    app = application(SimpleNamespace(**functions))
    known = {_path(method): _behaviors(method, app, telemetry) for method in service.methods}

    async def respond(scope: Scope, receive: Receive, send: Send) -> None:
        call = HttpCall(scope, receive, send)
        behaviors = known.get(route_path(scope)) or _unknown_method(route_path(scope), telemetry)
        await behaviors[call.head.protocol.system](CallContext(cast("grpc.aio.ServicerContext[Any, Any]", call)))

    return respond


def _local_name(name: str) -> str:
    """The name that generated code has for a method: `get_product` for `GetProduct`."""
    return re.sub("(?<!^)(?=[A-Z])", "_", name).lower()


def _path(method: MethodDescriptor) -> str:
    return f"/{method.containing_service.full_name}/{method.name}"


def _behaviors(method: MethodDescriptor, app: ASGIApp, telemetry: Telemetry) -> dict[str, Behavior[Any, Any]]:
    """What responds to the calls of a method, by their `rpc.system.name`."""
    name = _path(method).lstrip("/")
    respond = partial(_respond, app, gets=method.GetOptions().idempotency_level == MethodOptions.NO_SIDE_EFFECTS)
    return {
        system: trace_calls(name, respond, telemetry, telemetry.server_calls.method(name, system=system), _origin)
        for system in SYSTEMS
    }


def _unknown_method(path: str, telemetry: Telemetry) -> dict[str, Behavior[Any, Any]]:
    """The same for a method that the service does not have. The metrics count them all as one method."""
    calls = telemetry.server_calls
    return {
        system: trace_calls(
            path.lstrip("/"), _respond_unknown, telemetry, calls.method(semconv.OTHER, system=system), _origin
        )
        for system in SYSTEMS
    }


def _origin(context: Context) -> Origin:
    """Continues the trace of the caller, or begins one with a link: see `meshkit.fastapi.own_traces`."""
    caller = context.http_call.asgi_scope.get(CALLER)
    return extract(carrier(context), TraceContext()), [Link(caller)] if caller else [], None


async def _respond_unknown(context: Context) -> None:
    await context.http_call.respond(Unimplemented("the service has no such method"))


async def _respond(app: ASGIApp, context: Context, *, gets: bool) -> None:
    call: HttpCall = context.http_call
    if not await call.refused(gets=gets):
        _current.set(context)  # never reset, because each request has its own task and context
        await app(call.scope(), call.receive, call.send)


def _function(
    method: MethodDescriptor, servicer: object, concerns: Sequence[Concern]
) -> Callable[[Any, RequestContext[Any, Any]], Awaitable[Any]]:
    """The function of a method for connectrpc: calls that of the servicer, within the concerns."""
    handler, output = getattr(servicer, method.name), method.output_type.full_name
    behavior: Behavior[Any, Any] = partial(_handle, handler, output)
    for concern in reversed(concerns):
        behavior = concern(_path(method), behavior)

    async def respond(request: object, request_context: RequestContext[Any, Any]) -> object:
        context = _current.get()
        call: HttpCall = context.http_call
        call.request = request
        try:
            return await behavior(context)
        except grpc.aio.AbortError:
            if call.aborted is None:
                raise
            raise connect_error(call.aborted) from None
        except asyncio.CancelledError:
            call.raise_if_stopped()
            raise
        finally:
            for name, value in to_headers(call.initial_metadata()):
                request_context.response_headers.add(name, value)
            for name, value in to_headers(call.trailing_metadata()):
                request_context.response_trailers.add(name, value)

    return respond


async def _handle(handler: Any, output: str, context: Context) -> Any:
    context.admit(streams=False)
    response = await handler(context.http_call.request, context)
    await context.http_call.abort_if_set()
    if getattr(getattr(response, "DESCRIPTOR", None), "full_name", None) != output:
        raise TypeError(f"the handler returned a {type(response).__name__}, not a {output}")
    return response
