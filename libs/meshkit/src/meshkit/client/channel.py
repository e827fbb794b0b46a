"""Opens client channels. `Channel` says what a call passes through, `concerns` is the list of what is ours of it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Self, cast
from weakref import WeakSet

import grpc

from meshkit.client.batching import MAX_WAITING, BatchingCalls
from meshkit.client.calls import StreamStream, StreamUnary, UnaryStream, UnaryUnary
from meshkit.client.deadlines import deadlines
from meshkit.client.interceptors import user_interceptors
from meshkit.client.parsing import (
    ParsedStreamStream,
    ParsedStreamUnary,
    ParsedUnaryStream,
    ParsedUnaryUnary,
    parsed,
    parser,
    with_parsing,
)
from meshkit.client.policy import channel_options
from meshkit.client.request_stream import request_stream_interceptors
from meshkit.client.spread import Spread
from meshkit.client.tracing import tracing
from meshkit.operation_batches import free_batches
from meshkit.telemetry import contrib, semconv

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from typing import Unpack

    from meshkit.client.batch_call import Batching, BatchMethod
    from meshkit.client.types import (
        Call,
        CallOptions,
        Concern,
        Connect,
        Deserializer,
        Multicallable,
        Request,
        Requests,
        Response,
        Serializer,
    )
    from meshkit.telemetry.provider import Telemetry


def open_channel(
    target: str,
    *,
    service: str,
    repeatable: Sequence[str],
    limit: float,
    telemetry: Telemetry,
    credentials: grpc.ChannelCredentials | None = None,
    interceptors: Sequence[grpc.aio.ClientInterceptor] = (),
    options: Sequence[tuple[str, int | str]] = (),
    max_waiting: int = MAX_WAITING,
) -> Channel:
    """A channel to one service. The caller closes it; calls fail fast while the service cannot be reached.

    Args:
        target: a gRPC name such as `dns:///pricing.aiomesh.svc.cluster.local:50052` or `127.0.0.1:50052`.
        service: the full name of the service, such as `aiomesh.pricing.v1.PricingService`.
        repeatable: the methods that may be retried: reads, and mutations that carry a request id.
        limit: seconds that any one call may take, however much budget remains.
        telemetry: whose spans the calls make.
        credentials: for TLS, such as `grpc.ssl_channel_credentials(…)`; plain text without.
        interceptors: gRPC's; each call passes through them in this order, see `Channel` for where.
        options: of gRPC's core. One that meshkit sets, too (`meshkit.client.policy`), has the value given here:
            a `grpc.service_config` replaces the whole of meshkit's, `repeatable` included.
        max_waiting: the most calls of one method that wait to be sent together, see `Channel.batching`.
    """
    free_batches()
    connect = partial(
        partial(grpc.aio.secure_channel, credentials=credentials) if credentials else grpc.aio.insecure_channel,
        target,
        options=channel_options(service, repeatable, options),
        interceptors=[
            *with_parsing([*contrib.client_interceptors(telemetry), *user_interceptors(interceptors)]),
            *request_stream_interceptors(),
        ],
    )
    tracer = telemetry.tracer_provider.get_tracer("meshkit", schema_url=semconv.SCHEMA_URL)
    batching = None if contrib.is_chosen(telemetry) else partial(BatchingCalls, tracer=tracer, max_waiting=max_waiting)
    return Channel(connect, concerns(target, limit, telemetry), grace=limit, batching=batching)


def concerns(target: str, limit: float, telemetry: Telemetry) -> list[Concern]:
    """What surrounds each call of a channel to `target`, the outermost first."""
    own_tracing = [] if contrib.is_chosen(telemetry) else [tracing(telemetry, target)]
    return [*own_tracing, deadlines(limit)]


class Channel(grpc.aio.Channel):
    """The channel of one service's stub, and all that a call of it passes through.

    `stub.GetPrice(request)` runs through these, the outermost first:

    1. `meshkit.client.calls`: the call ends with the task that waits for it.
    2. This class: `close` ends the call, and a closed channel starts none.
    3. `meshkit.client.spread`: the call is made on a gRPC channel that has less than 50 in flight;
       `meshkit.client.renewal`: on the newest that was ready.
    4. `concerns`: `meshkit.client.tracing`, then `meshkit.client.deadlines`.
    5. `meshkit.client.parsing`: a response that cannot be parsed is the call's failure.
    6. gRPC's interceptors: `meshkit.telemetry.contrib` if chosen, then those given to `open_channel`
       (`meshkit.client.interceptors`), within them `parsing` again, so that they see that failure, then
       `meshkit.client.request_stream`. So all that an interceptor does with a call, another attempt included, is
       within the call's span and its deadline.
    7. gRPC's core, configured by `meshkit.client.policy`: balancing, retries, connections.

    Args:
        connect: opens a channel of gRPC's; this object closes it.
        concerns: what surrounds each call, the outermost first.
        grace: seconds that the calls of a channel have to end when it is renewed.
        batching: makes the calls of a method travel together; None if they do not.
    """

    def __init__(
        self,
        connect: Connect,
        concerns: Sequence[Concern],
        grace: float,
        batching: Batching | None = None,
    ) -> None:
        self._concerns = concerns
        self._batching = batching
        self._spread = Spread(connect, grace)
        self._calls: WeakSet[grpc.aio.Call] = WeakSet()
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self.close()

    async def close(self, grace: float | None = None) -> None:
        """Closes the channel; calls have `grace` seconds to end, and are cancelled then."""
        self._closed = True
        await asyncio.sleep(0)  # a call that was just made leaves its interceptors, which would fail
        await self._spread.stop()
        ends = asyncio.get_running_loop().time() + (grace or 0)
        for call in tuple(self._calls):
            with suppress(TimeoutError):
                async with asyncio.timeout_at(ends):
                    await call.code()
        await self._spread.close()  # which overlooks some calls, and so would its own grace
        for call in tuple(self._calls):
            call.cancel()

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:  # noqa: FBT001, FBT002 - gRPC's
        """The state of the channel that calls are made on now."""
        return self._spread.first.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Waits until the channel that calls are made on now leaves a state."""
        await self._spread.first.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """Waits until the channel that calls are made on now is ready."""
        await self._spread.first.channel_ready()

    def unary_unary(
        self,
        method: str,
        request_serializer: Serializer[Request] | None = None,
        response_deserializer: Deserializer[Response] | None = None,
        **registration: bool,
    ) -> grpc.aio.UnaryUnaryMultiCallable[Request, Response]:
        """The multicallable of a method: see `grpc.aio.Channel`, as for the other three.

        `registration` is `_registered_method`, which generated stubs pass and the published types lack.
        """
        parse = parser(response_deserializer)

        def make(channel: grpc.aio.Channel) -> Multicallable[Request, grpc.aio.UnaryUnaryCall[Request, Response]]:
            made = channel.unary_unary(method, request_serializer, parse, **registration)
            return parsed(made, ParsedUnaryUnary)  # pyright: ignore[reportArgumentType]

        start = self._surround(method, make)  # pyright: ignore[reportArgumentType]
        # Here and below: ours is no subclass of gRPC's class, because two of the four take no parameters at runtime.
        return cast(
            "grpc.aio.UnaryUnaryMultiCallable[Request, Response]",
            lambda request, **options: UnaryUnary(start(request, **options)),
        )

    def unary_stream(
        self,
        method: str,
        request_serializer: Serializer[Request] | None = None,
        response_deserializer: Deserializer[Response] | None = None,
        **registration: bool,
    ) -> grpc.aio.UnaryStreamMultiCallable[Request, Response]:
        """The multicallable of a method with a response stream."""
        parse = parser(response_deserializer)

        def make(channel: grpc.aio.Channel) -> Multicallable[Request, grpc.aio.UnaryStreamCall[Request, Response]]:
            made = channel.unary_stream(method, request_serializer, parse, **registration)
            return parsed(made, ParsedUnaryStream)  # pyright: ignore[reportArgumentType]

        start = self._surround(method, make)  # pyright: ignore[reportArgumentType]
        return cast(
            "grpc.aio.UnaryStreamMultiCallable[Request, Response]",
            lambda request, **options: UnaryStream(start(request, **options)),
        )

    def stream_unary(
        self,
        method: str,
        request_serializer: Serializer[Request] | None = None,
        response_deserializer: Deserializer[Response] | None = None,
        **registration: bool,
    ) -> grpc.aio.StreamUnaryMultiCallable[Request, Response]:
        """The multicallable of a method with a request stream."""
        parse = parser(response_deserializer)

        def make(
            channel: grpc.aio.Channel,
        ) -> Multicallable[Requests[Request], grpc.aio.StreamUnaryCall[Request, Response]]:
            made = channel.stream_unary(method, request_serializer, parse, **registration)
            return parsed(made, ParsedStreamUnary)  # pyright: ignore[reportArgumentType]

        start = self._surround(method, make)  # pyright: ignore[reportArgumentType]
        return cast(
            "grpc.aio.StreamUnaryMultiCallable[Request, Response]",
            lambda request_iterator=None, **options: StreamUnary(start(request_iterator, **options)),
        )

    def stream_stream(
        self,
        method: str,
        request_serializer: Serializer[Request] | None = None,
        response_deserializer: Deserializer[Response] | None = None,
        **registration: bool,
    ) -> grpc.aio.StreamStreamMultiCallable[Request, Response]:
        """The multicallable of a method with both streams."""
        parse = parser(response_deserializer)

        def make(
            channel: grpc.aio.Channel,
        ) -> Multicallable[Requests[Request], grpc.aio.StreamStreamCall[Request, Response]]:
            made = channel.stream_stream(method, request_serializer, parse, **registration)
            return parsed(made, ParsedStreamStream)  # pyright: ignore[reportArgumentType]

        start = self._surround(method, make)  # pyright: ignore[reportArgumentType]
        return cast(
            "grpc.aio.StreamStreamMultiCallable[Request, Response]",
            lambda request_iterator=None, **options: StreamStream(start(request_iterator, **options)),
        )

    def batching(self, method: BatchMethod[Request, Response]) -> Callable[[Request], Awaitable[Response]]:
        """The calls of a method, which travel together where possible (`meshkit.client.batching`).

        With contrib's interceptors each is made alone, because their spans cannot show a batch.
        """
        return self._batching(method) if self._batching else method.single

    def _surround(
        self, method: str, make: Callable[[grpc.aio.Channel], Multicallable[Request, Call]]
    ) -> Multicallable[Request, Call]:
        def surround(channel: grpc.aio.Channel) -> Multicallable[Request, Call]:
            multicallable = make(channel)
            for concern in reversed(self._concerns):
                multicallable = concern(method, multicallable)
            return multicallable

        multicallable = self._spread.multicallable(surround)

        def start(request: Request, /, **options: Unpack[CallOptions]) -> Call:
            if self._closed:
                raise grpc.aio.UsageError("Channel is closed.")
            call = multicallable(request, **options)
            self._calls.add(call)
            return call

        return start
