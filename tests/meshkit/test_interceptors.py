"""Given interceptors and options: their place in a call, and the fate of their errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest

from meshkit.deadline import remaining
from meshkit.errors import PermissionDenied, Unauthenticated
from meshkit.status import service_errors
from tests.meshkit.echo import echo
from tests.open_spans import OpenSpans

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshkit.testing import SpanCapture


class NoToken(Unauthenticated, domain="door.example"):
    """The client has no token to send."""


class WrongToken(PermissionDenied, domain="door.example"):
    """The token is invalid."""


class Doorkeeper(grpc.aio.ServerInterceptor):
    """Accepts calls with the right token."""

    async def intercept_service(self, continuation: Callable[..., Any], handler_call_details: Any) -> Any:
        if handler_call_details.method.startswith("/grpc."):
            return await continuation(handler_call_details)
        match dict(handler_call_details.invocation_metadata).get("token"):
            case "open":
                return await continuation(handler_call_details)
            case "break":
                raise KeyError("secret")
            case token:
                raise WrongToken("this token opens nothing", token=token)


class Bearer(grpc.aio.UnaryUnaryClientInterceptor):
    """Sends a token, or fails without one."""

    def __init__(self, token: str | None) -> None:
        self._token = token
        self.left: float | None = None

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        self.left = client_call_details.timeout
        if self._token is None:
            raise NoToken("there is no token")
        if not self._token:
            raise KeyError("secret")
        client_call_details.metadata.add("token", self._token)
        return await continuation(client_call_details, request)


async def answer(request: bytes, context: object) -> bytes:
    return request


def codes(capture: SpanCapture) -> list[object]:
    return [(span.attributes or {}).get("rpc.response.status_code") for span in capture.spans()]


@pytest.mark.parametrize(
    ("token", "code"),
    [
        ("open", "OK"),
        ("wrong", "PERMISSION_DENIED"),
        ("break", "INTERNAL"),
    ],
)
async def test_an_exception_of_a_server_interceptor_is_the_status_of_the_call_and_its_spans(
    token: str, code: str
) -> None:
    async with echo(UnaryUnary=answer, server_interceptors=[Doorkeeper()]) as service:
        service.server.telemetry.tracer_provider.add_span_processor(open_spans := OpenSpans())
        call = service.channel.unary_unary("/test.Echo/UnaryUnary")(b"", metadata=[("token", token)])
        assert (await call.code()).name == code
        assert "secret" not in await call.details()
        await open_spans.until_ended()
    assert codes(service.server) == codes(service.client) == [code]


async def test_a_domain_error_of_a_server_interceptor_reaches_the_client_unchanged() -> None:
    async with echo(UnaryUnary=answer, server_interceptors=[Doorkeeper()]) as service:
        with pytest.raises(PermissionDenied) as caught, service_errors():
            await service.unary(metadata=[("token", "wrong")])
    error = caught.value
    assert (error.reason, error.domain, error.fields) == ("WRONG_TOKEN", "door.example", {"token": "wrong"})


async def test_interceptors_of_both_sides_run_within_the_deadline() -> None:
    async with echo(
        UnaryUnary=answer, limit=3, server_interceptors=[Doorkeeper()], client_interceptors=[bearer := Bearer("open")]
    ) as service:
        assert await service.unary(b"hello") == b"hello"
    assert bearer.left == 3
    assert remaining() is None


async def test_a_domain_error_of_a_client_interceptor_ends_the_call_and_its_span() -> None:
    async with echo(UnaryUnary=answer, client_interceptors=[Bearer(None)]) as service:
        with pytest.raises(Unauthenticated) as caught, service_errors():
            await service.unary()
    assert (caught.value.reason, caught.value.domain) == ("NO_TOKEN", "door.example")
    assert codes(service.client) == ["UNAUTHENTICATED"]
    assert codes(service.server) == []


async def test_an_unexpected_error_of_a_client_interceptor_is_only_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with echo(UnaryUnary=answer, client_interceptors=[Bearer("")]) as service:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await service.unary()
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.INTERNAL, "internal error")
    assert codes(service.client) == ["INTERNAL"]
    assert "secret" in caplog.text


class BrokenUnaryUnary(grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        raise NoToken("there is no token")


class BrokenUnaryStream(grpc.aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        raise NoToken("there is no token")


class BrokenStreamUnary(grpc.aio.StreamUnaryClientInterceptor):
    async def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        raise NoToken("there is no token")


class BrokenStreamStream(grpc.aio.StreamStreamClientInterceptor):
    async def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        raise NoToken("there is no token")


@pytest.mark.parametrize(
    ("arity", "interceptor"),
    [
        ("unary_unary", BrokenUnaryUnary()),
        ("unary_stream", BrokenUnaryStream()),
        ("stream_unary", BrokenStreamUnary()),
        ("stream_stream", BrokenStreamStream()),
    ],
)
async def test_a_call_of_any_arity_ends_when_a_client_interceptor_fails(
    arity: str, interceptor: grpc.aio.ClientInterceptor
) -> None:
    async with echo(client_interceptors=[interceptor]) as service:
        start = getattr(service.channel, arity)("/test.Echo/AnyMethod")
        call = start(b"" if arity.startswith("unary") else iter([b""]))
        assert await call.code() is grpc.StatusCode.UNAUTHENTICATED
    assert codes(service.client) == ["UNAUTHENTICATED"]


async def test_a_given_option_replaces_that_of_meshkit() -> None:
    async def measure(request: bytes, context: object) -> bytes:
        return str(len(request)).encode()

    bound = [("grpc.max_receive_message_length", 100)]
    async with echo(UnaryUnary=measure, server_options=bound) as service:
        assert await service.unary(b"x" * 90) == b"90"
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await service.unary(b"x" * 101)
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED

    # Between the two limits gRPC rejects at random.
    limits = [("grpc.max_metadata_size", 2048), ("grpc.absolute_max_metadata_size", 2048)]
    async with echo(UnaryUnary=measure, server_options=limits) as service:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await service.unary(metadata=[("long", "x" * 4000)])
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_given_service_config_replaces_that_of_meshkit() -> None:
    attempts = 0

    async def fail(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        nonlocal attempts
        attempts += 1
        await context.abort(grpc.StatusCode.UNAVAILABLE, "not now")

    for options, expected in (((), 3), ([("grpc.service_config", "{}")], 1)):
        attempts = 0
        async with echo(UnaryUnary=fail, repeatable=("UnaryUnary",), client_options=options) as service:
            with pytest.raises(grpc.aio.AioRpcError):
                await service.unary()
        assert attempts == expected
