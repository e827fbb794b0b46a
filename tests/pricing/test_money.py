from __future__ import annotations

import pytest
from google.type.money_pb2 import Money as PbMoney
from hypothesis import given
from hypothesis import strategies as st

from pricing.convert import money_violations, to_money, write_money
from pricing.domain import MAX_AMOUNT, MINOR_DIGITS, Money

pytestmark = pytest.mark.unit

currencies = st.sampled_from(sorted(MINOR_DIGITS))


@pytest.mark.parametrize(
    ("money", "units", "nanos"),
    [
        (Money("EUR", 1250), 12, 500_000_000),
        (Money("JPY", 1200), 1200, 0),
        (Money("KWD", 3250), 3, 250_000_000),
        (Money("KWD", 1), 0, 1_000_000),
        (Money("EUR", -175), -1, -750_000_000),
        (Money("EUR", -5), 0, -50_000_000),
        (Money("JPY", MAX_AMOUNT), MAX_AMOUNT, 0),
    ],
)
def test_amounts_are_units_and_nanos_of_one_sign(money: Money, units: int, nanos: int) -> None:
    written = PbMoney()
    write_money(money, written)
    assert (written.currency_code, written.units, written.nanos) == (money.currency, units, nanos)


@given(currency=currencies, minor=st.integers(-MAX_AMOUNT, MAX_AMOUNT))
def test_every_amount_survives_conversion_to_money_and_back(currency: str, minor: int) -> None:
    money = Money(currency, minor)
    message = PbMoney()
    write_money(money, message)
    written = PbMoney.FromString(message.SerializeToString())
    assert not list(money_violations(written, "price"))
    assert to_money(written) == money


@pytest.mark.parametrize(
    ("money", "description"),
    [
        (PbMoney(currency_code="EUR", units=1, nanos=1_000_000_000), "between"),
        (PbMoney(currency_code="EUR", units=1, nanos=-2_000_000_000), "between"),
        (PbMoney(currency_code="EUR", units=1, nanos=-10_000_000), "sign"),
        (PbMoney(currency_code="EUR", units=-1, nanos=10_000_000), "sign"),
        (PbMoney(currency_code="EUR", units=1, nanos=1_000_000), "EUR has 2 decimal digits"),
        (PbMoney(currency_code="JPY", units=1, nanos=500_000_000), "JPY has 0 decimal digits"),
        (PbMoney(currency_code="KWD", units=1, nanos=100_000), "KWD has 3 decimal digits"),
    ],
)
def test_an_amount_not_in_whole_minor_units_is_a_violation(money: PbMoney, description: str) -> None:
    (violation,) = money_violations(money, "list_price")
    assert violation.field == "list_price.nanos"
    assert description in violation.description
