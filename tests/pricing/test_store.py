from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import func, select

from meshkit.testing import FakeClock, SpanCapture
from pricing.domain import (
    Line,
    Money,
    Order,
    PriceChange,
    Quote,
    RequestIdReused,
    UnknownCurrency,
    UnknownQuote,
    UnknownSku,
)
from pricing.seed import read_seeds
from pricing.tables import list_prices, promotions, quantity_breaks, quotes, rates
from tests.pricing.opened import prepare_database, store_on

if TYPE_CHECKING:
    from meshkit.database.database import Database
    from pricing.store import PriceStore

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(60)]  # the first one starts PostgreSQL

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


def order_of(*lines: tuple[str, int], currency: str = "EUR", fingerprint: str = "digest") -> Order:
    return Order(str(uuid.uuid4()), tuple(Line(*line) for line in lines), currency, fingerprint)


def change_of(sku: str, minor: int, currency: str = "EUR") -> PriceChange:
    return PriceChange(str(uuid.uuid4()), sku, Money(currency, minor))


async def test_the_readme_example_is_correct(store: PriceStore) -> None:
    book = await store.price_book(["TEA-0001"], "JPY")
    price = book.price(Line("TEA-0001", 12), "JPY")
    assert price.list_price == Money("EUR", 1690)
    assert price.promotion == "house-favourites"
    assert book.rate("JPY") == Decimal("182.45")
    assert price.unit_price == Money("JPY", 2636)
    assert price.total == Money("JPY", 31632)


async def test_a_new_database_holds_the_seeds(database: Database) -> None:
    tables = {"list_prices": list_prices, "quantity_breaks": quantity_breaks, "promotions": promotions, "rates": rates}
    async with database.read() as connection:
        for name, table in tables.items():
            stored = await connection.scalar(select(func.count()).select_from(table))
            assert stored == len(list(read_seeds(name)))


async def test_an_existing_database_is_not_seeded_again(
    database: Database, shared_url: str, capture: SpanCapture
) -> None:
    await store_on(database, capture, FakeClock(NOW)).set_price(change_of("TEA-0001", 1))
    async with prepare_database(shared_url, capture) as again:
        book = await store_on(again, capture, FakeClock(NOW)).price_book(["TEA-0001"], "EUR")
    assert book.list_prices["TEA-0001"].price == Money("EUR", 1)


async def test_a_book_has_only_the_requested_skus_and_currencies(store: PriceStore) -> None:
    book = await store.price_book(["HRB-0010", "BRW-0015", "GONE"], "JPY")
    assert book.list_prices.keys() == {"HRB-0010", "BRW-0015"}
    assert book.rates.keys() == {"EUR", "JPY", "CHF"}
    assert {"all", "category:tea", "sku:BRW-0015"} <= book.discounts.breaks.keys()
    assert "sku:ACC-0001" not in book.discounts.breaks


async def test_books_share_their_discounts_until_these_change(database: Database, store: PriceStore) -> None:
    books = [await store.price_book([sku], "EUR") for sku in ("HRB-0010", "HRB-0011")]
    assert books[0].discounts is books[1].discounts
    added = quantity_breaks.insert().values(scope="category:tea/herbal", min_quantity=1, percent_off="50")
    await database.write(lambda connection: connection.execute(added))
    changed = await store.price_book(["HRB-0010"], "EUR")
    prices = [book.price(Line("HRB-0010", 1), "EUR").unit_price.minor for book in (books[0], changed)]
    assert prices[1] < prices[0]


RATE_OF_MOMENT = {
    "2025-12-31T23:59:59+00:00": "163.06",
    "2026-01-01T00:00:00+00:00": "184.09",
    "2026-06-30T23:59:59+00:00": "184.09",
    "2026-07-01T01:00:00+02:00": "184.09",
    "2026-07-01T01:00:00+00:00": "182.45",
    "2040-01-01T00:00:00+00:00": "181.20",
}


async def test_the_newest_rate_dated_today_or_earlier_in_utc_applies(store: PriceStore, clock: FakeClock) -> None:
    found = {}
    for moment in RATE_OF_MOMENT:
        clock.now = datetime.fromisoformat(moment)
        found[moment] = str((await store.price_book([], "JPY")).rate("JPY"))
    assert found == RATE_OF_MOMENT


async def test_a_currency_is_unknown_before_its_first_rate(store: PriceStore, clock: FakeClock) -> None:
    clock.now = datetime(2023, 12, 31, tzinfo=UTC)
    with pytest.raises(UnknownCurrency):
        (await store.price_book(["TEA-0001"], "JPY")).price(Line("TEA-0001", 1), "JPY")
    assert (await store.price_book(["TEA-0001"], "EUR")).price(Line("TEA-0001", 1), "EUR").total.minor == 1690


async def test_a_promotion_starts_and_ends_at_its_exact_times(store: PriceStore, clock: FakeClock) -> None:
    start, end, tick = datetime(2026, 1, 5, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC), timedelta(microseconds=1)
    applied = []
    for clock.now in (start - tick, start, end - tick, end):
        book = await store.price_book(["CUP-0001"], "EUR")
        applied.append(book.price(Line("CUP-0001", 1), "EUR").promotion)
    assert applied == ["", "winter-sale-2026", "winter-sale-2026", ""]


async def test_a_quote_is_stored_and_read_unchanged(store: PriceStore) -> None:
    order = order_of(("TEA-0001", 12), ("COF-0018", 3), ("BRW-0015", 1), currency="KWD")
    made = await store.create_quote(order)
    assert made.total.minor == sum(line.total.minor for line in made.lines)
    assert [line.line for line in made.lines] == list(order.lines)
    assert made.create_time == NOW
    assert await store.get_quote(order.request_id) == made


async def test_a_quote_keeps_its_prices_after_later_changes(store: PriceStore, clock: FakeClock) -> None:
    order = order_of(("TEA-0001", 12), ("CUP-0001", 1), currency="JPY")
    made = await store.create_quote(order)
    await store.set_price(change_of("TEA-0001", 99_900))
    clock.now = datetime(2036, 6, 1, tzinfo=UTC)
    assert (await store.price_book(["TEA-0001"], "JPY")).price(Line("TEA-0001", 12), "JPY").total != made.lines[0].total
    assert await store.create_quote(order) == made
    assert await store.get_quote(order.request_id) == made


async def test_a_known_id_with_another_fingerprint_is_rejected_and_changes_nothing(store: PriceStore) -> None:
    order = order_of(("TEA-0001", 1))
    made = await store.create_quote(order)
    with pytest.raises(RequestIdReused) as caught:
        await store.create_quote(Order(order.request_id, (Line("TEA-0002", 5),), "USD", "another digest"))
    assert caught.value.fields == {"request_id": order.request_id}
    assert await store.get_quote(order.request_id) == made


async def test_a_rejected_order_leaves_no_quote_and_may_be_retried(store: PriceStore) -> None:
    order = order_of(("TEA-0001", 1), ("NEW-0001", 1))
    with pytest.raises(UnknownSku):
        await store.create_quote(order)
    with pytest.raises(UnknownQuote):
        await store.get_quote(order.request_id)
    await store.set_price(change_of("NEW-0001", 500))
    assert (await store.create_quote(order)).lines[1].total == Money("EUR", 500)


async def test_concurrent_attempts_over_two_connections_make_one_quote(
    database: Database, shared_url: str, capture: SpanCapture
) -> None:
    order = order_of(("TEA-0001", 12), ("TEA-0002", 3))
    async with prepare_database(shared_url, capture) as other:
        # Two clocks far apart: independently calculated quotes would differ.
        stores = [
            store_on(database, capture, FakeClock(NOW)),
            store_on(other, capture, FakeClock(NOW + timedelta(days=4000))),
        ]
        answers = await asyncio.gather(*(stores[turn % 2].create_quote(order) for turn in range(40)))
        async with database.read() as connection:
            stored = await connection.scalar(select(func.count()).select_from(quotes))
    assert len(set(answers)) == 1
    assert stored == 1


async def test_of_two_concurrent_requests_with_one_id_and_different_content_one_is_rejected(
    database: Database, capture: SpanCapture
) -> None:
    store, request_id = store_on(database, capture, FakeClock(NOW)), str(uuid.uuid4())
    orders = [Order(request_id, (Line("TEA-0001", 1),), currency, currency) for currency in ("EUR", "JPY")]
    answers = await asyncio.gather(*(store.create_quote(order) for order in orders * 5), return_exceptions=True)
    made = {answer.total.currency for answer in answers if isinstance(answer, Quote)}
    refused = [answer for answer in answers if isinstance(answer, RequestIdReused)]
    assert len(made) == 1
    assert len(refused) == 5


async def test_a_repeated_price_change_is_applied_once(store: PriceStore) -> None:
    first, second = change_of("TEA-0001", 2000), change_of("TEA-0001", 2500, "USD")
    assert await store.set_price(first) == Money("EUR", 2000)
    assert await store.set_price(second) == Money("USD", 2500)
    assert await store.set_price(first) == Money("USD", 2500)
    book = await store.price_book(["TEA-0001"], "EUR")
    assert book.list_prices["TEA-0001"].price == Money("USD", 2500)
    assert book.list_prices["TEA-0001"].category == "tea"


async def test_a_different_change_with_a_known_id_is_rejected(store: PriceStore) -> None:
    first = change_of("TEA-0001", 2000)
    await store.set_price(first)
    for other in (change_of("TEA-0002", 2000), change_of("TEA-0001", 2001), change_of("TEA-0001", 2000, "USD")):
        with pytest.raises(RequestIdReused):
            await store.set_price(PriceChange(first.request_id, other.sku, other.price))
    book = await store.price_book(["TEA-0001", "TEA-0002"], "EUR")
    assert [book.list_prices[sku].price.minor for sku in ("TEA-0001", "TEA-0002")] == [2000, 1450]


async def test_a_list_price_in_a_currency_without_a_rate_is_rejected(store: PriceStore, clock: FakeClock) -> None:
    clock.now = datetime(2023, 1, 1, tzinfo=UTC)
    with pytest.raises(UnknownCurrency):
        await store.set_price(change_of("TEA-0001", 2000, "SEK"))
    assert (await store.price_book(["TEA-0001"], "EUR")).list_prices["TEA-0001"].price == Money("EUR", 1690)


async def test_a_new_sku_gets_only_the_breaks_and_promotions_of_the_scope_all(store: PriceStore) -> None:
    await store.set_price(change_of("NEW-0001", 1000))
    price = (await store.price_book(["NEW-0001"], "EUR")).price(Line("NEW-0001", 10), "EUR")
    assert (price.unit_price, price.promotion) == (Money("EUR", 950), "")


async def test_a_process_sees_the_changes_of_another_process_at_once(
    database: Database, shared_url: str, capture: SpanCapture
) -> None:
    async with prepare_database(shared_url, capture) as other:
        mine, theirs = store_on(database, capture, FakeClock(NOW)), store_on(other, capture, FakeClock(NOW))
        for minor in (1000, 2000, 3000):
            await theirs.set_price(change_of("TEA-0001", minor))
            assert (await mine.price_book(["TEA-0001"], "EUR")).list_prices["TEA-0001"].price.minor == minor


async def test_the_largest_amounts_are_stored_exactly(store: PriceStore) -> None:
    await store.set_price(change_of("TEA-0001", 999_999_999, "KWD"))
    order = order_of(("TEA-0001", 999_999), currency="INR")
    quote = await store.create_quote(order)
    assert int(float(quote.total.minor)) != quote.total.minor, "a float would do as well"
    assert await store.get_quote(order.request_id) == quote
