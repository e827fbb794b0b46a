"""A client of the storefront in one protocol, and what it gets: values of the domain, or a Failure."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping, Sequence

    from api_edge.domain import Line, Order, Product
    from meshkit.errors import FieldViolation


SECONDS = 10
"""The deadline of each call, so that a busy machine ends none."""


class Placed(NamedTuple):
    """An order and its key, as the response has them."""

    order: Order
    key: str


@dataclass(frozen=True)
class Details:
    """An error without its status, which is of a protocol."""

    message: str
    reason: str
    domain: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    violations: tuple[FieldViolation, ...] = ()
    retry_after: float | None = None


class Failure(Exception):
    """A call failed with a status: a number of HTTP, or a name of gRPC."""

    def __init__(self, status: int | str, details: Details) -> None:
        super().__init__(status, details)
        self.status = status
        self.details = details


class Trace:
    """The trace that a client begins with each call.

    Attributes:
        trace_id: of the last call.
        parent: the id of the client's span, which is the parent of the edge's.
    """

    def __init__(self) -> None:
        self.trace_id = ""
        self.parent = 0

    def begin(self) -> str:
        """The `traceparent` of another call."""
        self.trace_id, parent = secrets.token_hex(16), secrets.token_hex(8)
        self.parent = int(parent, 16)
        return f"00-{self.trace_id}-{parent}-01"


class ShopClient(Protocol):
    """The calls of the storefront. They raise Failure. What is None is not sent."""

    trace: Trace
    invalid: int | str
    """The status of a request that its schema or the rules reject."""

    def status_of(self, code: str) -> int | str:
        """The status that stands for a code of gRPC."""

    def delay_of(self, seconds: float) -> float:
        """The retry delay that the client reads if the server says so many seconds."""

    async def product(
        self, sku: str, *, currency: str | None = None, quantity: int | None = None, strict: bool = False
    ) -> Product: ...

    async def products(
        self,
        skus: Sequence[str] = (),
        *,
        page_size: int | None = None,
        page_token: str = "",
        strict: bool = False,
        **priced: Any,
    ) -> tuple[list[Product], str]: ...

    async def place_order(
        self, lines: Sequence[Line], *, keys: Sequence[str] = (), currency: str | None = None
    ) -> Placed: ...

    async def order(self, order_id: str) -> Order: ...

    async def commit_order(self, order_id: str) -> Order: ...

    async def release_order(self, order_id: str) -> Order: ...


async def failure_of(call: Awaitable[object]) -> Failure:
    """The failure of a call that fails."""
    try:
        result = await call
    except Failure as failure:
        return failure
    raise AssertionError(f"it did not fail: {result}")
