"""Measures RPCs: the duration of each call, and the number of active calls.

https://opentelemetry.io/docs/specs/semconv/rpc/rpc-metrics/. A call costs one record in a
histogram. Plain integers count the active calls, and a scrape reads them.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from opentelemetry.metrics import Observation

from meshkit.telemetry import semconv
from meshkit.telemetry.durations import Durations

if TYPE_CHECKING:
    from collections.abc import Iterable

    from opentelemetry.context import Context
    from opentelemetry.metrics import CallbackOptions, Histogram, Meter
    from opentelemetry.util.types import AttributeValue

Attributes = dict[str, "AttributeValue"]


class MeasuredMethod:
    """The measurements of one method; in a client, of its calls to one target.

    Attributes:
        name: the full name of the method, or `_OTHER`.
        attributes: the attributes of every measurement.
        active: the number of active calls.
    """

    def __init__(self, name: str, attributes: Attributes, histogram: Histogram, errors: frozenset[str]) -> None:
        self.name = name
        self.attributes = attributes
        self.active = 0
        self._histogram = histogram
        self._errors = errors
        self._durations: dict[str, Durations] = {}

    def begin(self) -> float:
        """Counts a new call. Returns its start time, for `end`."""
        self.active += 1
        return time.perf_counter()

    def end(self, start: float, code: str, context: Context) -> float:
        """Records the end of a call. Returns its duration in seconds.

        Args:
            start: the result of `begin`.
            code: the name of the gRPC status code.
            context: the context with the call's span, which an exemplar names.
        """
        seconds = time.perf_counter() - start
        self.active -= 1
        durations = self._durations.get(code) or self._durations.setdefault(code, self._with(code))
        durations.record(seconds, context)
        return seconds

    def _with(self, code: str) -> Durations:
        error = {semconv.ERROR_TYPE: code} if code in self._errors else {}
        return Durations(self._histogram, {**self.attributes, semconv.RPC_RESPONSE_STATUS_CODE: code, **error})


class CallMetrics:
    """The metrics of all calls to a process's servers, or of all calls on its channels.

    Create one per meter, because OpenTelemetry ignores the callback of an instrument that is created a second time.
    """

    def __init__(self, meter: Meter, *, duration: str, active: str, direction: str, errors: frozenset[str]) -> None:
        self._errors = errors
        self._methods: dict[frozenset[tuple[str, AttributeValue]], MeasuredMethod] = {}
        self._durations = meter.create_histogram(
            duration,
            unit="s",
            description=f"Duration of {direction} RPCs.",
            explicit_bucket_boundaries_advisory=semconv.DURATION_BUCKETS,
        )
        meter.create_observable_up_down_counter(
            active, [self._observe], unit="{call}", description=f"Number of {direction} RPCs under way."
        )

    def method(self, name: str, server: Attributes | None = None, *, system: str = semconv.GRPC) -> MeasuredMethod:
        """The measurements of a method: the same object for the same attributes.

        Args:
            name: the full name, such as `aiomesh.pricing.v1.PricingService/GetPrice`.
            server: in a client, the attributes with the server's address and port.
            system: the protocol of the calls.
        """
        attributes = {semconv.RPC_SYSTEM_NAME: system, semconv.RPC_METHOD: name, **(server or {})}
        new = MeasuredMethod(name, attributes, self._durations, self._errors)
        return self._methods.setdefault(frozenset(attributes.items()), new)

    def _observe(self, _options: CallbackOptions) -> Iterable[Observation]:
        return [Observation(method.active, method.attributes) for method in list(self._methods.values())]


def client_calls(meter: Meter) -> CallMetrics:
    """The metrics of all channels of a process."""
    return CallMetrics(
        meter,
        duration=semconv.RPC_CLIENT_CALL_DURATION,
        active=semconv.RPC_CLIENT_ACTIVE_CALLS,
        direction="outbound",
        errors=semconv.CLIENT_ERRORS,
    )


def server_calls(meter: Meter) -> CallMetrics:
    """The metrics of all servers of a process."""
    return CallMetrics(
        meter,
        duration=semconv.RPC_SERVER_CALL_DURATION,
        active=semconv.RPC_SERVER_ACTIVE_CALLS,
        direction="inbound",
        errors=semconv.SERVER_ERRORS,
    )
