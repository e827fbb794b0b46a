from __future__ import annotations

from collections import Counter
from datetime import date
from decimal import Decimal

import pytest

from inventory.seed import read_catalogue
from pricing.domain import MAX_LIST_PRICE, MINOR_DIGITS
from pricing.price_book import BASE_CURRENCY
from pricing.seed import read_seeds

pytestmark = pytest.mark.unit


def test_the_seeds_have_at_least_200_list_prices_each_sku_once() -> None:
    skus = [row["sku"] for row in read_seeds("list_prices")]
    assert len(set(skus)) == len(skus) >= 200


def test_every_sku_with_a_price_has_stock_and_three_skus_with_stock_have_no_price() -> None:
    stocked = {row["sku"]: row["category"] for row in read_catalogue()}
    priced = {row["sku"]: row["category"] for row in read_seeds("list_prices")}
    assert priced.items() <= stocked.items()
    assert stocked.keys() - priced.keys() == {"GFT-0010", "GFT-0011", "GFT-0012"}


def test_list_prices_are_whole_minor_units_of_known_currencies() -> None:
    for row in read_seeds("list_prices"):
        minor = Decimal(row["list_price"]).scaleb(MINOR_DIGITS[row["currency"]])
        assert minor == int(minor), row
        assert 1 <= minor <= MAX_LIST_PRICE, row


def test_every_currency_has_rates_of_several_days_and_an_old_one() -> None:
    days = Counter(row["currency"] for row in read_seeds("rates"))
    old = {row["currency"] for row in read_seeds("rates") if date.fromisoformat(row["valid_from"]) <= date(2024, 1, 1)}
    assert days.keys() == old == MINOR_DIGITS.keys() - {BASE_CURRENCY}
    assert min(days.values()) >= 3
    assert all(Decimal(row["per_euro"]) > 0 for row in read_seeds("rates"))


def test_every_discount_is_above_0_and_below_100_percent() -> None:
    for row in [*read_seeds("quantity_breaks"), *read_seeds("promotions")]:
        assert 0 < Decimal(row["percent_off"]) < 100, row


def test_the_scopes_of_breaks_and_promotions_exist() -> None:
    prices = list(read_seeds("list_prices"))
    known = {f"sku:{row['sku']}" for row in prices} | {f"category:{row['category']}" for row in prices} | {"all"}
    assert {row["scope"] for row in [*read_seeds("quantity_breaks"), *read_seeds("promotions")]} <= known


def test_the_seeds_have_past_current_and_future_promotions() -> None:
    spans = [
        (date.fromisoformat(row["valid_from"]), date.fromisoformat(row["valid_until"]))
        for row in read_seeds("promotions")
    ]
    assert all(start < end for start, end in spans)
    assert any(end <= date(2026, 1, 1) for _, end in spans)
    assert any(start <= date(2026, 1, 1) and end >= date(2036, 1, 1) for start, end in spans)
    assert any(start >= date(2030, 1, 1) for start, _ in spans)
