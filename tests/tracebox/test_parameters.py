"""The query parameters: their values, and the messages for invalid ones."""

from __future__ import annotations

import pytest
from starlette.datastructures import QueryParams

from tracebox.parameters import InvalidQuery, Parameters, check_limit
from tracebox.search import FOREVER

pytestmark = pytest.mark.unit


def parameters(**query: str) -> Parameters:
    return Parameters(QueryParams(query))


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("40ms", 40_000_000),
        ("0.04s", 40_000_000),
        ("250us", 250_000),
        ("5µs", 5000),
        ("5μs", 5000),
        (".5us", 500),
        ("5.s", 5_000_000_000),
        ("1h30m", 5_400_000_000_000),
        ("1h2m3.5s", 3_723_500_000_000),
        ("0", 0),
        ("", 0),
    ],
)
def test_a_duration_is_read_with_its_units(text: str, nanoseconds: int) -> None:
    assert parameters(minDuration=text).duration("minDuration") == nanoseconds


@pytest.mark.parametrize(
    "text", ["5", "5x", "ms", ".ms", "1s5", "5 ms", "-5ms", "--5ms", "9223372037s", "٣s", "1" * 60_000]
)
def test_a_malformed_duration_is_an_error_with_an_example(text: str) -> None:
    with pytest.raises(InvalidQuery, match=r"^'maxDuration' must be a duration with its unit, such as 250us"):
        parameters(maxDuration=text).duration("maxDuration")


@pytest.mark.parametrize("text", ["yesterday", "1.5", "1_000", "٣", "9223372036854775808", "1" * 5000])
def test_a_time_must_be_a_whole_number(text: str) -> None:
    with pytest.raises(InvalidQuery, match=r"^'start' must be a time in whole microseconds since 1970"):
        parameters(start=text).window()


def test_a_window_is_in_microseconds() -> None:
    assert parameters(start="-5", end="+7").window() == (-5000, 7000)


def test_a_window_without_default_may_have_only_an_end() -> None:
    assert parameters().window(None) == (0, FOREVER // 1000 * 1000)
    assert parameters(end="7").window(None) == (0, 7000)


@pytest.mark.parametrize("text", ["many", "2147483648", "-2147483649"])
def test_a_limit_must_be_a_32_bit_integer(text: str) -> None:
    with pytest.raises(InvalidQuery, match=r"^'limit' must be a whole number from 1 to 100000\.$"):
        parameters(limit=text).limit()


@pytest.mark.parametrize("limit", [-1, 0, 100_001])
def test_a_limit_must_be_in_range(limit: int) -> None:
    assert parameters(limit=str(limit)).limit() == limit
    with pytest.raises(InvalidQuery, match=r"^'limit' must be a whole number from 1 to 100000\.$"):
        check_limit(limit)


@pytest.mark.parametrize(("text", "value"), [("true", True), ("1", True), ("F", False), ("0", False), ("", False)])
def test_a_flag_has_the_spellings_of_jaeger(text: str, value: object) -> None:
    assert parameters(raw=text).flag("raw") is value


def test_a_flag_must_be_true_or_false() -> None:
    with pytest.raises(InvalidQuery, match=r"^'raw' must be true or false\.$"):
        parameters(raw="yes").flag("raw")


def test_tags_of_both_parameters_are_combined() -> None:
    assert parameters(tag="a:b:c", tags='{"n":"3"}').search().tags == {"a": "b:c", "n": "3"}


@pytest.mark.parametrize(
    "document",
    [
        "n=3",
        '{"n":3}',
        '{"n":true}',
        '{"n":null}',
        "[]",
        "null",
        '{"a":',
        '{"a":"b"} x',
        '{"a":NaN}',
        "[" * 100_000,
        f'{{"n":{"9" * 5000}}}',
    ],
)
def test_malformed_tags_are_an_error_with_an_example(document: str) -> None:
    with pytest.raises(InvalidQuery, match=r"^'tags' must be a JSON object of strings, such as"):
        parameters(tags=document).search()
