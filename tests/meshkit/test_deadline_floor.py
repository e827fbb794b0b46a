"""A server refuses at once what comes too late to be answered."""

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
    """The context of a call whose client waits for so many seconds, or for ever."""

    seconds: float | None

    def time_remaining(self) -> float | None:
        return self.seconds

    @property
    def context(self) -> CallContext[str, str]:
        return cast("CallContext[str, str]", self)


@dataclass
class Handler:
    """Answers every call, and notes the budget that it ran with."""

    budgets: list[float] = field(default_factory=list)

    async def __call__(self, context: CallContext[str, str]) -> str:
        left = remaining()
        assert left is not None
        self.budgets.append(left)
        return "sold"


@pytest.mark.parametrize("seconds", [0.004, 0.0, -0.5])
async def test_a_call_that_comes_below_the_floor_is_refused_and_its_handler_never_runs(seconds: float) -> None:
    handler = Handler()
    with pytest.raises(DeadlineExceeded, match=r"^shop\.v1\.TillService/Sell came with [04] ms left$"):
        await deadlines(METHOD, handler)(Caller(seconds).context)
    assert handler.budgets == []


@pytest.mark.parametrize("seconds", [FLOOR, 1.0])
async def test_a_call_with_time_left_runs_with_that_time_as_its_budget(seconds: float) -> None:
    handler = Handler()
    assert await deadlines(METHOD, handler)(Caller(seconds).context) == "sold"
    (budget,) = handler.budgets
    assert budget <= seconds


async def test_a_call_without_a_deadline_runs_with_the_servers_own_limit() -> None:
    handler = Handler()
    assert await deadlines(METHOD, handler)(Caller(None).context) == "sold"
    (budget,) = handler.budgets
    assert 1.0 < budget <= MAX_SECONDS


async def test_the_budget_ends_with_the_call() -> None:
    await deadlines(METHOD, Handler())(Caller(1.0).context)
    assert remaining() is None
