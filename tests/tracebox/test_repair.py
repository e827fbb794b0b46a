"""Broken values in an export: they lose neither other values nor other spans."""

from __future__ import annotations

import pytest
from google.protobuf import text_format
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.tracebox.spans import Plain, event, export, span
from tracebox.repair import repair

pytestmark = pytest.mark.unit

REPLACED = "\N{REPLACEMENT CHARACTER}"
WHOLE: dict[str, Plain] = {"whole": "yes", "number": 7, "map": {"a": [1, 2.5, True, None, b"\xff"]}}


def repaired(encoded: bytes) -> ExportTraceServiceRequest:
    with pytest.raises(DecodeError):
        ExportTraceServiceRequest.FromString(encoded)
    return ExportTraceServiceRequest.FromString(repair(ExportTraceServiceRequest.DESCRIPTOR, encoded))


def spans(request: ExportTraceServiceRequest) -> list[Span]:
    return [found for resource in request.resource_spans for scope in resource.scope_spans for found in scope.spans]


def nested(depth: int) -> Plain:
    value: Plain = "deep"
    for _ in range(depth):
        value = [value]
    return value


def with_links() -> Span:
    made = span(1, 2, "linked", links=[(3, 4)], error="no", events=[event("BROKEN", 1, text="BROKEN")])
    made.links[0].trace_state = "BROKEN"
    made.trace_state = "BROKEN"
    return made


@pytest.mark.parametrize("broken", [b"\xff\xfe\xfd\xfc\xfb\xfa", b"\xed\xa0\x80\xed\xb0\x80", b"caf\xe9 !"])
@pytest.mark.parametrize(
    "made",
    [
        span(1, 2, "BROKEN"),
        span(1, 2, tags={"BROKEN": "x"}),
        span(1, 2, tags={"x": "BROKEN"}),
        span(1, 2, tags={"x": ["BROKEN", {"BROKEN": ["BROKEN"]}]}),
        span(1, 2, error="BROKEN"),
        with_links(),
    ],
)
def test_text_that_is_not_utf_8_changes_nothing_but_itself(made: Span, broken: bytes) -> None:
    good = span(5, 6, "good", tags=WHOLE)
    encoded = export(good, made, city="north").SerializeToString().replace(b"BROKEN", broken)
    found = repaired(encoded)
    assert spans(found)[0] == good
    shown = text_format.MessageToString(found, as_utf8=True).replace(broken.decode(errors="replace"), "BROKEN")
    assert shown == text_format.MessageToString(export(good, made, city="north"))


def test_text_of_a_resource_or_a_scope_that_is_not_utf_8_loses_no_span() -> None:
    request = export(span(1, 2), service="BROKEN")
    request.resource_spans[0].scope_spans[0].scope.name = "BROKEN"
    request.resource_spans[0].schema_url = "BROKEN"
    found = repaired(request.SerializeToString().replace(b"BROKEN", b"BR\xffKEN"))
    assert found.resource_spans[0].resource.attributes[0].value.string_value == f"BR{REPLACED}KEN"
    assert spans(found) == [span(1, 2)]


@pytest.mark.parametrize("depth", [50, 100, 1000])
def test_a_value_that_is_too_deep_loses_its_depths_only(depth: int) -> None:
    good, deep = span(1, 2, tags=WHOLE), span(1, 3, tags=WHOLE)
    encoded, part = export(good).SerializeToString(), deep.SerializeToString()
    value = b"\x0a\x04deep"
    for _ in range(depth):
        value = wrapped(5, wrapped(1, value))
    attribute = wrapped(9, wrapped(1, b"deep") + wrapped(2, value))
    scope = wrapped(2, part + attribute)
    first, second = spans(repaired(encoded + wrapped(1, wrapped(2, scope))))
    assert first == good
    assert [a.key for a in second.attributes] == [*WHOLE, "deep"]
    assert second.attributes[:3] == good.attributes[:3]


def wrapped(field: int, content: bytes) -> bytes:
    """A field with a length, in protobuf's encoding."""
    size: list[int] = []
    length = len(content)
    while length > 127:
        size.append(length & 127 | 128)
        length >>= 7
    return bytes([field << 3 | 2, *size, length]) + content


def test_a_span_that_is_no_message_is_empty_and_the_others_are_whole() -> None:
    good = span(1, 2)
    encoded = export(good).SerializeToString() + wrapped(1, wrapped(2, wrapped(2, b"\xff\xff")))
    assert spans(repaired(encoded)) == [good, Span()]


def test_a_request_that_is_no_message_remains_an_error() -> None:
    with pytest.raises(DecodeError):
        repair(ExportTraceServiceRequest.DESCRIPTOR, b"\xff\xff\xff")
