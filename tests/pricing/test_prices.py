from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing.domain import (
    MAX_AMOUNT,
    MAX_LIST_PRICE,
    MAX_QUANTITY,
    MINOR_DIGITS,
    InvalidRequest,
    Line,
    ListPrice,
    Money,
    Order,
    UnknownCurrency,
    UnknownSku,
)
from pricing.price_book import Discounts, PriceBook, Promotion, QuantityBreak, scopes_of

pytestmark = pytest.mark.unit

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
TEA = ListPrice("TEA-0001", "tea", Money("EUR", 1690))
HERB = ListPrice("HRB-0001", "tea/herbal", Money("EUR", 540))
POT = ListPrice("POT-0001", "teapots", Money("GBP", 2950))
RATES = {
    "EUR": Decimal(1),
    "JPY": Decimal("182.45"),
    "GBP": Decimal("0.86415"),
    "KWD": Decimal("0.35842"),
    "USD": Decimal("1.1684"),
}


def make_book(
    *items: ListPrice,
    breaks: tuple[QuantityBreak, ...] = (),
    promotions: tuple[Promotion, ...] = (),
    rates: dict[str, Decimal] | None = None,
) -> PriceBook:
    return PriceBook(NOW, {item.sku: item for item in items}, Discounts(breaks, promotions), rates or RATES)


def tier(scope: str, start: int, percent: str) -> QuantityBreak:
    return QuantityBreak(start, Decimal(percent), scope)


def promotion(name: str, scope: str, percent: str) -> Promotion:
    return Promotion(Decimal(percent), name, scope)


def test_the_list_price_in_its_own_currency_is_the_price() -> None:
    price = make_book(TEA).price(Line("TEA-0001", 3), "EUR")
    assert (price.unit_price, price.total) == (Money("EUR", 1690), Money("EUR", 5070))
    assert (price.list_price, price.promotion) == (Money("EUR", 1690), "")


@pytest.mark.parametrize(
    ("currency", "unit", "total"),
    [("JPY", 3083, 36996), ("KWD", 6057, 72684), ("GBP", 1460, 17520), ("USD", 1975, 23700)],
)
def test_a_price_is_converted_to_the_minor_units_of_each_currency(currency: str, unit: int, total: int) -> None:
    price = make_book(TEA).price(Line("TEA-0001", 12), currency)
    assert (price.unit_price, price.total) == (Money(currency, unit), Money(currency, total))


def test_two_foreign_currencies_convert_through_the_euro() -> None:
    price = make_book(POT).price(Line("POT-0001", 1), "JPY")  # 29.50 * 182.45 / 0.86415 = 6228.40...
    assert price.unit_price == Money("JPY", 6228)


@pytest.mark.parametrize(("minor", "expected"), [(250, 2), (350, 4), (251, 3), (349, 3)])
def test_halves_go_to_the_even_minor_unit(minor: int, expected: int) -> None:
    item = ListPrice("X", "", Money("EUR", minor))
    price = make_book(item, rates={"EUR": Decimal(1), "JPY": Decimal(1)}).price(Line("X", 1), "JPY")
    assert price.unit_price == Money("JPY", expected)


def test_a_price_never_rounds_down_to_zero() -> None:
    cheap = ListPrice("X", "", Money("JPY", 1))
    price = make_book(cheap, rates={"EUR": Decimal(1), "JPY": Decimal(1000)}).price(Line("X", 5), "EUR")
    assert (price.unit_price.minor, price.total.minor) == (1, 5)


@pytest.mark.parametrize(("quantity", "expected"), [(9, 1690), (10, 1606), (49, 1606), (50, 1521), (100, 1521)])
def test_the_highest_break_reached_applies(quantity: int, expected: int) -> None:
    book = make_book(TEA, breaks=(tier("all", 50, "10"), tier("all", 10, "5")))
    assert book.price(Line("TEA-0001", quantity), "EUR").unit_price.minor == expected


def test_breaks_of_a_more_specific_scope_replace_the_others() -> None:
    general, category, own = tier("all", 1, "50"), tier("category:tea", 1, "20"), tier("sku:HRB-0001", 100, "1")
    line = Line("HRB-0001", 10)
    assert make_book(HERB, breaks=(general, category)).price(line, "EUR").unit_price.minor == 432
    assert make_book(HERB, breaks=(general, category, own)).price(line, "EUR").unit_price.minor == 540


def test_only_the_best_promotion_applies() -> None:
    offers = (promotion("a", "all", "5"), promotion("b", "sku:TEA-0001", "10"), promotion("c", "sku:OTHER", "90"))
    price = make_book(TEA, promotions=offers).price(Line("TEA-0001", 1), "EUR")
    assert (price.promotion, price.unit_price.minor) == ("b", 1521)


def test_a_promotion_applies_after_the_break() -> None:
    book = make_book(TEA, breaks=(tier("all", 10, "5"),), promotions=(promotion("a", "all", "10"),))
    assert book.price(Line("TEA-0001", 12), "EUR").unit_price.minor == 1445  # 16.90 * 0.95 * 0.90 = 14.4495


def test_a_category_includes_its_subcategories_and_not_categories_with_the_same_prefix() -> None:
    book = make_book(HERB, POT, promotions=(promotion("tea-time", "category:tea", "10"),))
    assert book.price(Line("HRB-0001", 1), "EUR").promotion == "tea-time"
    assert book.price(Line("POT-0001", 1), "EUR").promotion == ""


def test_scopes_are_ordered_from_the_sku_to_all() -> None:
    assert scopes_of("HRB-1", "tea/herbal") == ("sku:HRB-1", "category:tea/herbal", "category:tea", "all")
    assert scopes_of("NEW-1", "") == ("sku:NEW-1", "all")


def test_an_unknown_currency_is_reported_before_an_unknown_sku() -> None:
    with pytest.raises(UnknownCurrency) as caught:
        make_book().price(Line("GONE", 1), "SEK")
    assert caught.value.fields == {"currency": "SEK"}
    with pytest.raises(UnknownCurrency):
        make_book().prices([Line("GONE", 1)], "SEK")


def test_a_currency_with_a_rate_and_without_minor_digits_is_unknown() -> None:
    with pytest.raises(UnknownCurrency):
        make_book(TEA, rates={"EUR": Decimal(1), "XAU": Decimal(1)}).price(Line("TEA-0001", 1), "XAU")


def test_a_list_price_in_a_currency_without_minor_digits_is_of_an_unknown_currency() -> None:
    book = make_book(ListPrice("TEA-0001", "tea", Money("XAU", 1690)), rates={**RATES, "XAU": Decimal(1)})
    with pytest.raises(UnknownCurrency) as caught:
        book.price(Line("TEA-0001", 1), "EUR")
    assert caught.value.fields == {"currency": "XAU"}


@pytest.mark.parametrize("currency", ["EUR", "JPY"])
def test_every_price_of_a_book_is_that_of_a_book_of_its_own(currency: str) -> None:
    sold = [ListPrice(sku, "tea", Money("EUR", 999)) for sku in ("TEA-0001", "TEA-0002", "OWN-0001", "OWN-0002")]
    sold += [ListPrice("TEA-0003", "tea", Money("GBP", 999)), HERB, POT]
    breaks = (tier("category:tea", 5, "10"), tier("sku:OWN-0001", 2, "30"), tier("all", 1, "1"))
    promotions = (promotion("tea", "category:tea", "3"), promotion("own", "sku:OWN-0002", "20"))
    lines = [Line(item.sku, quantity) for quantity in (1, 5, 2) for item in sold]
    prices, missing = make_book(*sold, breaks=breaks, promotions=promotions).prices(lines, currency)
    alone = [make_book(*sold, breaks=breaks, promotions=promotions).price(line, currency) for line in lines]
    assert (prices, missing) == (alone, [])


def test_prices_keep_the_order_of_the_request_and_list_each_missing_sku_once() -> None:
    lines = [Line("B", 1), Line("TEA-0001", 1), Line("A", 1), Line("B", 2), Line("HRB-0001", 1), Line("TEA-0001", 2)]
    prices, missing = make_book(TEA, HERB).prices(lines, "EUR")
    assert [price.line for price in prices] == [lines[1], lines[4], lines[5]]
    assert missing == ["B", "A"]


def test_a_quote_freezes_each_line_and_their_sum() -> None:
    order = Order("id", (Line("TEA-0001", 2), Line("HRB-0001", 3)), "EUR", "digest")
    quote = make_book(TEA, HERB).quote(order)
    assert [line.total.minor for line in quote.lines] == [3380, 1620]
    assert (quote.quote_id, quote.fingerprint, quote.total, quote.create_time) == (
        "id",
        "digest",
        Money("EUR", 5000),
        NOW,
    )


def test_the_error_of_a_quote_names_the_unknown_sku() -> None:
    with pytest.raises(UnknownSku) as caught:
        make_book(TEA).quote(Order("id", (Line("TEA-0001", 2), Line("GONE", 3)), "EUR", "digest"))
    assert caught.value.fields == {"sku": "GONE"}


HUGE = {"EUR": Decimal(1), "KRW": Decimal(10) ** 9}


def test_a_line_total_beyond_int64_is_rejected() -> None:
    book = make_book(TEA, HERB, rates=HUGE)
    with pytest.raises(InvalidRequest) as caught:
        book.prices([Line("HRB-0001", 1), Line("TEA-0001", MAX_QUANTITY * 1000)], "KRW")
    assert [violation.field for violation in caught.value.violations] == ["lines[1].quantity"]


def test_an_order_total_beyond_int64_is_rejected() -> None:
    items = [ListPrice(f"SKU-{number}", "", Money("EUR", MAX_LIST_PRICE)) for number in range(100)]
    lines = tuple(Line(item.sku, 100) for item in items)
    with pytest.raises(InvalidRequest) as caught:
        make_book(*items, rates=HUGE).quote(Order("id", lines, "KRW", "digest"))
    assert [violation.field for violation in caught.value.violations] == ["lines"]


currencies = st.sampled_from(sorted(MINOR_DIGITS))
percents = st.decimals(min_value="0.01", max_value="99.99", places=2)
per_euro = st.decimals(min_value="0.00001", max_value="100000", places=5)


def independent_unit_price(
    item: ListPrice, percents_off: list[Decimal], currency: str, rates: dict[str, Decimal]
) -> int:
    """The same rule, calculated with fractions and Python's half-even rounding."""
    amount = Fraction(item.price.minor, 10 ** MINOR_DIGITS[item.price.currency])
    for percent in percents_off:
        amount *= 1 - Fraction(percent) / 100
    amount *= Fraction(rates[currency]) / Fraction(rates[item.price.currency])
    return int(max(1, round(amount * 10 ** MINOR_DIGITS[currency])))


@given(
    minor=st.integers(1, MAX_LIST_PRICE),
    listed_in=currencies,
    currency=currencies,
    rates=st.tuples(per_euro, per_euro),
    percents_off=st.tuples(percents, percents),
    quantity=st.integers(1, MAX_QUANTITY),
)
def test_every_price_is_exact_and_rounded_once(
    *,
    minor: int,
    listed_in: str,
    currency: str,
    rates: tuple[Decimal, Decimal],
    percents_off: tuple[Decimal, Decimal],
    quantity: int,
) -> None:
    item = ListPrice("X", "", Money(listed_in, minor))
    table = {listed_in: rates[0]} | {currency: rates[1]}
    off, on_top = percents_off
    book = make_book(
        item, breaks=(QuantityBreak(1, off, "all"),), promotions=(Promotion(on_top, "p", "all"),), rates=table
    )
    expected = independent_unit_price(item, [off, on_top], currency, table)
    if expected * quantity > MAX_AMOUNT:
        with pytest.raises(InvalidRequest):
            book.price(Line("X", quantity), currency)
        return
    price = book.price(Line("X", quantity), currency)
    assert price.unit_price == Money(currency, expected)
    assert price.total == Money(currency, price.unit_price.minor * quantity)


@given(pairs=st.integers(0, MAX_LIST_PRICE // 2 - 1), currency=currencies)
def test_every_exact_half_goes_to_the_even_minor_unit(pairs: int, currency: str) -> None:
    item = ListPrice("X", "", Money(currency, 2 * pairs + 1))
    book = make_book(item, promotions=(promotion("half", "all", "50"),), rates={currency: Decimal("1.7")})
    unit = book.price(Line("X", 1), currency).unit_price.minor
    assert unit == max(1, pairs if pairs % 2 == 0 else pairs + 1)
