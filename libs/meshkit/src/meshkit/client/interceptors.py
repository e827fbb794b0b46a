"""The gRPC interceptors that the user of a channel brings, and what makes a status of all that they raise.

For grpc.aio an interceptor ends with a call or an AioRpcError. After any other exception the call is never done, and
its span does not end. Here an exception becomes what a handler's becomes on the server: a ServiceError its own status,
which `meshkit.status.service_errors` turns back, and everything else INTERNAL, with the traceback in the log.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

import grpc

from meshkit.errors import Internal, ServiceError
from meshkit.status import call_failure

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from meshkit.client.types import Call, Continuation, Request

log = logging.getLogger("meshkit.client")


def user_interceptors(interceptors: Sequence[grpc.aio.ClientInterceptor]) -> list[grpc.aio.ClientInterceptor]:
    """These interceptors, within those that make a status of what they raise."""
    return [_UnaryUnary(), _UnaryStream(), _StreamUnary(), _StreamStream(), *interceptors] if interceptors else []


async def _start(
    continuation: Continuation[Request, Call], details: grpc.aio.ClientCallDetails, request: Request
) -> Call:
    with _errors_as_statuses():
        return await continuation(details, request)


@contextmanager
def _errors_as_statuses() -> Iterator[None]:
    try:
        yield
    except grpc.aio.AioRpcError:
        raise
    except ServiceError as error:
        raise call_failure(error) from error
    except Exception as error:
        log.exception("an interceptor failed")
        raise call_failure(Internal("internal error")) from error


class _UnaryUnary(grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(
        self,
        continuation: Continuation[Request, Call],
        client_call_details: grpc.aio.ClientCallDetails,
        request: Request,
    ) -> Call:
        return await _start(continuation, client_call_details, request)


class _UnaryStream(grpc.aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(
        self,
        continuation: Continuation[Request, Call],
        client_call_details: grpc.aio.ClientCallDetails,
        request: Request,
    ) -> Call:
        return await _start(continuation, client_call_details, request)


class _StreamUnary(grpc.aio.StreamUnaryClientInterceptor):
    async def intercept_stream_unary(
        self,
        continuation: Continuation[Request, Call],
        client_call_details: grpc.aio.ClientCallDetails,
        request_iterator: Request,
    ) -> Call:
        return await _start(continuation, client_call_details, request_iterator)


class _StreamStream(grpc.aio.StreamStreamClientInterceptor):
    async def intercept_stream_stream(
        self,
        continuation: Continuation[Request, Call],
        client_call_details: grpc.aio.ClientCallDetails,
        request_iterator: Request,
    ) -> Call:
        return await _start(continuation, client_call_details, request_iterator)
