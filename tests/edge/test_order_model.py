"""Two clients with one key, in every sequence that hypothesis thinks of, against a model of what they were answered."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from aiomesh.pricing.v1.pricing_service_pb2 import SetPriceRequest
from aiomesh.pricing.v1.pricing_service_pb2_grpc import PricingServiceStub
from api_edge.domain import Line, OrderState
from api_edge.rules import order_id
from meshkit.errors import ServiceError
from tests.databases import new_databases
from tests.edge.backends import FAILED, LOST, MADE, REFUSED, Backends, Killed, backends

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from api_edge.domain import Order

pytestmark = pytest.mark.asyncio(loop_scope="module")

SKU = "TEA-0001"
ORDERS = [[Line(SKU, 1)], [Line(SKU, 2)]]
OUTCOMES = st.sampled_from([MADE, MADE, REFUSED, LOST, FAILED])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("place"), st.integers(0, 1), OUTCOMES, OUTCOMES),
        st.tuples(st.just("both place"), st.integers(0, 1), OUTCOMES, OUTCOMES),
        st.tuples(st.sampled_from(["commit", "release", "reprice", "purge"]), st.just(0), st.just(MADE), st.just(MADE)),
    ),
    min_size=4,
    max_size=10,
)


@dataclass
class Model:
    """What clients were answered: the order under the key, if one was and is still remembered, and the units sold."""

    answered: Order | None = None
    sold: int = 0

    def remember(self, order: Order) -> None:
        """An order that was answered once is answered the same from then on."""
        if self.answered:
            assert order.quote == self.answered.quote
        self.answered = order


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["sqlite", "postgresql"])
async def mesh(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Backends]:
    async with new_databases(request, tmp_path_factory.mktemp("orders"), 2) as urls, backends(*urls) as running:
        running.script.reset(respond=True)
        yield running


@pytest.mark.timeout(120)
@given(steps=STEPS)
@settings(
    max_examples=12,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # a failure is short enough to read, and shrinking takes long
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
async def test_no_sequence_of_two_clients_with_one_key_loses_reprices_or_leaks_an_order(
    mesh: Backends, steps: list[tuple[str, int, str, str]]
) -> None:
    key, model, before = str(uuid.uuid4()), Model(), await mesh.rows()
    on_hand = (await mesh.stock.stocks([SKU]))[SKU].on_hand
    for action, number, reserve, quote in steps:
        mesh.script.outcomes = {"ReserveStock": reserve, "CreateQuote": quote}
        await act(mesh, model, key, action, number)
        await assert_order_is_as_answered(mesh, model, key)
    await mesh.expire_and_purge()
    stock = (await mesh.stock.stocks([SKU]))[SKU]
    assert (stock.on_hand, stock.reserved) == (on_hand - model.sold, 0)
    kept = {"reservations", "reservation_lines", "quotes", "quote_lines"} if model.sold else set()
    assert await mesh.rows() == {table: rows + (table in kept) for table, rows in before.items()}


async def act(mesh: Backends, model: Model, key: str, action: str, number: int) -> None:
    match action:
        case "place":
            await place(mesh, model, key, number, role="ours")
        case "both place":
            await asyncio.gather(
                place(mesh, model, key, number, role="ours"), place(mesh, model, key, 1 - number, role="theirs")
            )
        case "commit" | "release":
            await end(mesh, model, key, action)
        case "reprice":
            await reprice(mesh)
        case "purge":
            await mesh.expire_and_purge()
            if model.answered and model.answered.reservation.state is not OrderState.COMMITTED:
                model.answered = None


async def place(mesh: Backends, model: Model, key: str, number: int, role: str) -> None:
    async with mesh.storefront(Killed(role=role)) as storefront:
        try:
            model.remember(await storefront.place_order(key, ORDERS[number], "EUR"))
        except ServiceError:
            return


async def end(mesh: Backends, model: Model, key: str, action: str) -> None:
    ends = mesh.shop.commit_order if action == "commit" else mesh.shop.release_order
    try:
        ended = await ends(order_id(key))
    except ServiceError:
        assert model.answered is None or model.answered.reservation.state is not OrderState.RESERVED
        return
    if ended.reservation.state is OrderState.COMMITTED and not model.sold:
        model.sold = sum(line.quantity for line in ended.quote.lines)
    model.remember(ended)


async def reprice(mesh: Backends) -> None:
    """Another list price, which no order that was answered may show."""
    units = int(uuid.uuid4().int % 90) + 1
    request = SetPriceRequest(
        request_id=str(uuid.uuid4()), sku=SKU, list_price={"currency_code": "EUR", "units": units}
    )
    async with grpc.aio.insecure_channel(mesh.addresses["pricing"]) as channel:
        await PricingServiceStub(channel).SetPrice(request)


async def assert_order_is_as_answered(mesh: Backends, model: Model, key: str) -> None:
    if model.answered is None:
        return
    assert await mesh.shop.order(order_id(key)) == model.answered
