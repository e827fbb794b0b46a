"""The query parameters: what they mean, and what is said of those that are wrong."""

from __future__ import annotations

import pytest
from starlette.datastructures import QueryParams

from tracebox.parameters import InvalidQuery, Parameters, check_limit
from tracebox.search import FOREVER

pytestmark = pytest.mark.unit


def given(**query: str) -> Parameters:
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
def test_a_duration_has_units(text: str, nanoseconds: int) -> None:
    assert given(minDuration=text).duration("minDuration") == nanoseconds


@pytest.mark.parametrize(
    "text", ["5", "5x", "ms", ".ms", "1s5", "5 ms", "-5ms", "--5ms", "9223372037s", "٣s", "1" * 60_000]
)
def test_a_malformed_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(InvalidQuery, match=r"^'maxDuration' must be a duration with its unit, such as 250us"):
        given(maxDuration=text).duration("maxDuration")


@pytest.mark.parametrize("text", ["yesterday", "1.5", "1_000", "٣", "9223372036854775808", "1" * 5000])
def test_a_time_that_is_not_a_whole_number_is_refused(text: str) -> None:
    with pytest.raises(InvalidQuery, match=r"^'start' must be a time in whole microseconds since 1970"):
        given(start=text).window()


def test_a_window_is_given_in_microseconds() -> None:
    assert given(start="-5", end="+7").window() == (-5000, 7000)


def test_a_window_of_all_times_may_have_one_end() -> None:
    assert given().window(None) == (0, FOREVER // 1000 * 1000)
    assert given(end="7").window(None) == (0, 7000)


@pytest.mark.parametrize("text", ["many", "2147483648", "-2147483649"])
def test_a_limit_that_is_no_32_bit_integer_is_refused(text: str) -> None:
    with pytest.raises(InvalidQuery, match=r"^'limit' must be a whole number from 1 to 100000\.$"):
        given(limit=text).limit()


@pytest.mark.parametrize("limit", [-1, 0, 100_001])
def test_a_limit_out_of_range_is_refused(limit: int) -> None:
    assert given(limit=str(limit)).limit() == limit
    with pytest.raises(InvalidQuery, match=r"^'limit' must be a whole number from 1 to 100000\.$"):
        check_limit(limit)


@pytest.mark.parametrize(("text", "value"), [("true", True), ("1", True), ("F", False), ("0", False), ("", False)])
def test_a_flag_is_spelled_as_for_jaeger(text: str, value: object) -> None:
    assert given(raw=text).flag("raw") is value


def test_a_flag_that_is_neither_true_nor_false_is_refused() -> None:
    with pytest.raises(InvalidQuery, match=r"^'raw' must be true or false\.$"):
        given(raw="yes").flag("raw")


def test_tags_of_both_spellings_come_together() -> None:
    assert given(tag="a:b:c", tags='{"n":"3"}').search().tags == {"a": "b:c", "n": "3"}


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
def test_malformed_tags_are_refused_with_an_example(document: str) -> None:
    with pytest.raises(InvalidQuery, match=r"^'tags' must be a JSON object of strings, such as"):
        given(tags=document).search()
