"""What Jaeger warns of after looking at a whole trace: clocks that differ, parents missing, ids taken twice.

Source: ``CorrectClockSkew`` in Jaeger's query service, with its default maximum adjustment of 0: nothing is
moved, it is only said by how much the times would have to be.
"""

from collections import defaultdict

from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from tracebox import values
from tracebox.golang import format_duration
from tracebox.store import Origin, StoredSpan, Trace

_HOST_KEYS = ("host.id", "host.ip", "host.name")


def trace_warnings(trace: Trace) -> dict[bytes, list[str]]:
    """Return warnings by the encoded bytes of the span that they are about."""
    found: dict[bytes, list[str]] = defaultdict(list)
    spans: dict[bytes, StoredSpan] = {}
    for span in trace.spans:
        if spans.setdefault(span.span_id, span) is not span:
            found[span.encoded].append("duplicate span IDs; skipping clock skew adjustment")
    children: dict[bytes, list[StoredSpan]] = defaultdict(list)
    for span in spans.values():
        parent = span.parent_id if span.parent_id in spans else b""
        children[parent].append(span)
        if span.parent_id != parent:
            missing = f"parent span ID={span.parent_id.hex()} is not in the trace; skipping clock skew adjustment"
            found[span.encoded].append(missing)
    for span, delta in _skews(children):
        skew = format_duration(delta)
        found[span.encoded].append(f"clock skew adjustment disabled; not applying calculated delta of {skew}")
    return found


def _skews(children: dict[bytes, list[StoredSpan]]) -> list[tuple[StoredSpan, int]]:
    """Return the spans whose clock seems to differ from that of their roots, and by how many nanoseconds."""
    hosts = {span.origin: "" for siblings in children.values() for span in siblings}
    hosts = {origin: _host(origin) for origin in hosts}
    skews: list[tuple[StoredSpan, int]] = []
    pending = [(root, 0) for root in children.get(b"", ())]
    while pending:
        parent, inherited = pending.pop()
        if inherited:
            skews.append((parent, inherited))
        for span in children.get(parent.span_id, ()):
            host = hosts[span.origin]
            same_clock = host and host == hosts[parent.origin]
            pending.append((span, inherited if same_clock else _skew(span, parent)))
    return skews


def _skew(child: StoredSpan, parent: StoredSpan) -> int:
    latency = (parent.end - parent.start) - (child.end - child.start)
    if latency < 0:  # it lasted longer than its parent, which may have stopped waiting
        return max(0, parent.start - child.start)
    if parent.start <= child.start and child.end <= parent.end:
        return 0
    return parent.start + latency // 2 - child.start


def _host(origin: Origin) -> str:
    attributes = {a.key: a.value for a in Resource.FromString(origin.resource).attributes}
    for key in _HOST_KEYS:
        if key in attributes:
            value = attributes[key]
            several = value.array_value.values
            return values.text(several[0] if several else value)
    return ""
