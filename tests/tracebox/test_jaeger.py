"""Conversion of OTLP to Jaeger's JSON. The expected values are Jaeger's own for the same spans."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.tracebox.spans import T0, Plain, event, export, nanoseconds, span
from tracebox.compact_json import dump_float
from tracebox.jaeger import JaegerSpan, format_trace_id, trace_json
from tracebox.parameters import InvalidQuery, parse_trace_id
from tracebox.store import TraceStore

if TYPE_CHECKING:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

pytestmark = pytest.mark.unit

TRACE = 0xA100000000000000_0000000000000001


def stored(*requests: ExportTraceServiceRequest) -> TraceStore:
    store = TraceStore(1000, 1 << 20)
    for request in requests:
        store.add(request)
    return store


def converted(*requests: ExportTraceServiceRequest) -> Any:
    trace = stored(*requests).trace(TRACE.to_bytes(16, "big"))
    assert trace is not None
    return json.loads("".join(trace_json(trace)))


def by_number(trace: Any, number: int) -> Any:
    return next(found for found in trace["spans"] if int(found["spanID"], 16) == number)


def tags_of(found: JaegerSpan) -> dict[str, Any]:
    return {tag["key"]: tag["value"] for tag in found["tags"]}


def test_a_span_has_exactly_the_fields_of_jaeger() -> None:
    work = span(TRACE, 2, "GET", at=(10, 20.0009), parent=1, kind=Span.SPAN_KIND_SERVER, error="no such item")
    assert converted(export(work, zone="north")) == {
        "traceID": "a1000000000000000000000000000001",
        "spans": [
            {
                "traceID": "a1000000000000000000000000000001",
                "spanID": "0000000000000002",
                "operationName": "GET",
                "references": [
                    {
                        "refType": "CHILD_OF",
                        "traceID": "a1000000000000000000000000000001",
                        "spanID": "0000000000000001",
                    }
                ],
                "startTime": T0 * 1_000_000 + 10_000,
                "duration": 10_000,
                "tags": [
                    {"key": "error", "type": "bool", "value": True},
                    {"key": "otel.scope.name", "type": "string", "value": "tests"},
                    {"key": "otel.status_code", "type": "string", "value": "ERROR"},
                    {"key": "otel.status_description", "type": "string", "value": "no such item"},
                    {"key": "span.kind", "type": "string", "value": "server"},
                ],
                "logs": [],
                "processID": "p1",
                "warnings": None,
            }
        ],
        "processes": {"p1": {"serviceName": "shop", "tags": [{"key": "zone", "type": "string", "value": "north"}]}},
        "warnings": None,
    }


@pytest.mark.parametrize(
    ("plain", "kind", "value"),
    [
        ("text", "string", "text"),
        ("", "string", ""),
        (None, "string", ""),
        (True, "bool", True),
        (7, "int64", 7),
        (2**53 - 1, "int64", 2**53 - 1),
        (2**53, "int64", "9007199254740992"),
        (-(2**63), "int64", "-9223372036854775808"),
        (1.5, "float64", 1.5),
        (2.0, "float64", 2),
        (2.338305729952665e16, "float64", 23383057299526650),
        (1e-9, "float64", 1e-9),
        (float("inf"), "float64", "inf"),
        (b"\x00\xff\x10", "binary", "AP8Q"),
        ([], "string", "[]"),
        ([1, 2.5, True, "x", [1], None, 1e-7, 1e21], "string", '[1,2.5,true,"x",[1],null,1e-7,1e+21]'),
        ({"b": "<é>", "a": {"c": [b"\x01"]}}, "string", r'{"a":{"c":["AQ=="]},"b":"\u003cé\u003e"}'),
    ],
)
def test_an_attribute_keeps_its_type_if_json_has_it(plain: Plain, kind: str, value: object) -> None:
    found = converted(export(span(TRACE, 1, tags={"key": plain})))["spans"][0]["tags"][0]
    assert found == {"key": "key", "type": kind, "value": value}
    assert type(found["value"]) is type(value)


def test_an_event_is_a_log_with_its_name_as_first_field() -> None:
    work = span(TRACE, 1, events=[event("row read", 0.5, rows=1), event("named", 0.6, event="itself")])
    assert converted(export(work))["spans"][0]["logs"] == [
        {
            "timestamp": T0 * 1_000_000 + 500,
            "fields": [
                {"key": "event", "type": "string", "value": "row read"},
                {"key": "rows", "type": "int64", "value": 1},
            ],
        },
        {
            "timestamp": T0 * 1_000_000 + 600,
            "fields": [{"key": "event", "type": "string", "value": "itself"}],
        },
    ]


def test_links_come_after_the_parent_and_a_link_to_the_parent_changes_its_type() -> None:
    work = span(TRACE, 2, parent=1, links=[(0xB, 5), (TRACE, 1), (0, 7)])
    found = by_number(converted(export(span(TRACE, 1, at=(0, 9)), work)), 2)
    assert [(r["refType"], r["traceID"], r["spanID"]) for r in found["references"]] == [
        ("FOLLOWS_FROM", "a1000000000000000000000000000001", "0000000000000001"),
        ("FOLLOWS_FROM", "000000000000000b", "0000000000000005"),
    ]
    assert found["warnings"] == ["Invalid span link removed"]


def test_each_resource_is_one_process_whose_service_name_is_not_a_tag() -> None:
    trace = converted(
        export(span(TRACE, 1), host="one"), export(span(TRACE, 2), host="two"), export(span(TRACE, 3), host="one")
    )
    assert [found["processID"] for found in trace["spans"]] == ["p1", "p2", "p1"]
    assert trace["processes"]["p2"] == {
        "serviceName": "shop",
        "tags": [{"key": "host", "type": "string", "value": "two"}],
    }


@pytest.mark.parametrize(
    ("request_", "service"),
    [
        (export(span(TRACE, 1), service=None), "missing-service-name"),
        (export(span(TRACE, 1), service=""), "empty-service-name"),
        (export(span(TRACE, 1), service=None, **{"service.name": 5}), "service-name-wrong-type"),
    ],
)
def test_a_process_without_a_valid_name_has_a_name_that_explains_it(
    request_: ExportTraceServiceRequest, service: str
) -> None:
    assert converted(request_)["processes"]["p1"]["serviceName"] == service


def test_a_missing_name_and_an_end_before_the_start_are_corrected_with_a_warning() -> None:
    found = converted(export(span(TRACE, 1, "", at=(5040, 5030))))["spans"][0]
    assert found["operationName"] == "empty-span-name"
    assert found["duration"] == 0
    assert "".join(found["warnings"] or ()) == (
        "Negative duration detected, sanitizing end timestamp. "
        "Original end timestamp: 2026-01-02 03:04:10.03 +0000 UTC, "
        "adjusted to: 2026-01-02 03:04:10.040000001 +0000 UTC"
    )


def test_a_span_outside_the_time_of_its_parent_keeps_its_times_without_a_warning() -> None:
    trace = converted(
        export(span(TRACE, 1, at=(0, 100)), **{"host.name": "one"}),
        export(span(TRACE, 2, at=(210, 290), parent=1), **{"host.name": "two"}),
    )
    assert [found["warnings"] for found in trace["spans"]] == [None, None]
    assert by_number(trace, 2)["startTime"] == nanoseconds(210) // 1000


def test_spans_that_are_each_others_parent_are_converted() -> None:
    trace = converted(export(span(TRACE, 1, parent=2), span(TRACE, 2, parent=1), span(TRACE, 3, parent=3)))
    assert [len(found["references"]) for found in trace["spans"]] == [1, 1, 1]


def test_a_trace_in_which_each_span_is_the_parent_of_the_next_is_converted() -> None:
    chain = [span(TRACE, n, parent=n - 1, at=(n, 10_000 - n)) for n in range(1, 1000)]
    assert len(converted(export(*chain))["spans"]) == 999


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("a1000000000000000000000000000001", "a1000000000000000000000000000001"),
        ("A1000000000000000000000000000001", "a1000000000000000000000000000001"),
        ("0000000000000000a400000000000004", "a400000000000004"),
        ("ff0000000000000009", "00000000000000ff0000000000000009"),
        ("1", "0000000000000001"),
    ],
)
def test_a_trace_id_may_be_short_or_in_upper_case(written: str, shown: str) -> None:
    assert format_trace_id(parse_trace_id(written)) == shown


@pytest.mark.parametrize("written", ["", "not-hex", "g" * 32, "1" * 33, "0x1", "1 "])
def test_a_malformed_trace_id_is_invalid(written: str) -> None:
    with pytest.raises(InvalidQuery, match=r"^A trace id is 1 to 32 hexadecimal digits\.$"):
        parse_trace_id(written)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_is_the_same_after_writing_and_reading(number: float) -> None:
    assert float(json.loads(dump_float(number))) == number
