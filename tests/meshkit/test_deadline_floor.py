"""A server rejects at once a call that arrives too late for a response."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import pytest

from meshkit.deadline import FLOOR, remaining
from meshkit.errors import DeadlineExceeded
from meshkit.server.deadlines import MAX_SECONDS, deadlines

if TYPE_CHECKING:
    from meshkit.server.context import CallContext

pytestmark = pytest.mark.unit

METHOD = "/shop.v1.TillService/Sell"


@dataclass
class Caller:
    """The context of a call whose client waits for `seconds`, or without a limit."""

    seconds: float | None

    def time_remaining(self) -> float | None:
        return self.seconds

    @property
    def context(self) -> CallContext[str, str]:
        return cast("CallContext[str, str]", self)


@dataclass
class Handler:
    """Responds to every call and records its budget."""

    budgets: list[float] = field(default_factory=list)

    async def __call__(self, context: CallContext[str, str]) -> str:
        left = remaining()
        assert left is not None
        self.budgets.append(left)
        return "sold"


@pytest.mark.parametrize("seconds", [0.004, 0.0, -0.5])
async def test_a_call_below_the_floor_is_rejected_and_its_handler_never_runs(seconds: float) -> None:
    handler = Handler()
    with pytest.raises(DeadlineExceeded, match=r"^shop\.v1\.TillService/Sell came with [04] ms left$"):
        await deadlines(METHOD, handler)(Caller(seconds).context)
    assert handler.budgets == []


@pytest.mark.parametrize("seconds", [FLOOR, 1.0])
async def test_the_remaining_time_of_a_call_is_its_budget(seconds: float) -> None:
    handler = Handler()
    assert await deadlines(METHOD, handler)(Caller(seconds).context) == "sold"
    (budget,) = handler.budgets
    assert budget <= seconds


async def test_a_call_without_a_deadline_gets_the_limit_of_the_server() -> None:
    handler = Handler()
    assert await deadlines(METHOD, handler)(Caller(None).context) == "sold"
    (budget,) = handler.budgets
    assert 1.0 < budget <= MAX_SECONDS


async def test_the_budget_ends_with_the_call() -> None:
    await deadlines(METHOD, Handler())(Caller(1.0).context)
    assert remaining() is None
