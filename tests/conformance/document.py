"""The tables of `docs/conformance.md`: the expected result of every ending, and the faults of contrib.

The tests of contrib use the second one as their record; `python -m tests.conformance` rewrites it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tests.conformance.observing import Fault
from tests.conformance.table import ENDINGS, IMPOSSIBLE_ROWS, ROWS, Ending, Row, cells, impossible
from tests.repository import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tests.conformance.table import Outcome

DOCUMENT = ROOT / "docs" / "conformance.md"
FIRST, LAST = "<!-- the conformance tables: python -m tests.conformance -->", "<!-- end of the conformance tables -->"

CLEAN, VARIES, UNSTABLE, NONE = "✓", "~", "?", "-"
MARKS = {
    CLEAN: "as expected",
    VARIES: "some runs had more faults",
    UNSTABLE: "some runs had no fault",
    NONE: "no such cell",
}

NOTHING_SEEN = {Fault.CRASHES, Fault.HANGS}

CONTRIB, GRPC = "open-telemetry/opentelemetry-python-contrib", "grpc/grpc"
MEANINGS = {
    Fault.CRASHES: ("closing the channel raises an InternalError", {}),
    Fault.HANGS: ("the call, or the end of its process, hangs", {}),
    Fault.BREAKS_THE_CALL: ("the call ends differently than without tracing", {CONTRIB: [3066], GRPC: [34530]}),
    Fault.NO_CLIENT_SPAN: ("the client span never ends", {CONTRIB: [3271]}),
    Fault.WRONG_CLIENT_STATUS: ("the client span has the wrong status", {CONTRIB: [3271]}),
    Fault.NO_SERVER_SPAN: ("the server span is missing or never ends", {CONTRIB: [3271]}),
    Fault.WRONG_SERVER_STATUS: ("the server span has the wrong status", {}),
    Fault.SECOND_SPAN: ("there is an extra span", {}),
    Fault.WRONG_PARENT: ("a span has the wrong parent or trace", {}),
    Fault.SECOND_EXCEPTION: ("an exception is recorded twice", {CONTRIB: [5068]}),
    Fault.HANDLER_NOT_BEGUN: ("the handler is never called, or receives no request", {CONTRIB: [3066], GRPC: [34530]}),
    Fault.HANDLER_GOES_ON: ("the handler continues after its client disconnected", {CONTRIB: [3271]}),
    Fault.LOGS: ("asyncio, grpc, opentelemetry or Python logs a warning", {CONTRIB: [3066]}),
}
"""The meaning of each sign, and the upstream issues about it, by repository."""


def verdict(runs: Sequence[frozenset[Fault]]) -> str:
    """The document's text of a cell, from the faults in each of its runs.

    The signs of the faults in every run (except runs without a result), followed by `~` if some runs had more faults,
    and by `?` if some had none.
    """
    if not any(runs):
        return CLEAN
    if not all(runs):
        return UNSTABLE
    complete_runs = [run for run in runs if not run & NOTHING_SEEN] or runs
    always = "".join(sorted(frozenset.intersection(*complete_runs)))
    return always if len(set(runs)) == 1 else always + VARIES


def read_verdicts(text: str) -> dict[tuple[Row, Ending], str]:
    """The verdict of each cell in the document."""
    lines = dict(re.findall(rf"^\| (.+?) \| ((?:[^|]+ \| ){{{len(ROWS) - 1}}}[^|]+) \|$", text, re.MULTILINE))
    verdicts = {ending: [each.strip() for each in lines[ending.name].split("|")] for ending in ENDINGS}
    return {(row, ending): verdicts[ending][ROWS.index(row)] for row, ending in cells()}


def render(verdicts: Mapping[tuple[Row, Ending], str]) -> str:
    """The tables, from the verdicts on contrib."""
    parts = (_numbers(), _expected(), _impossible(), _count(verdicts), _contrib(verdicts), _meanings(verdicts))
    return "\n\n".join((FIRST, *parts, LAST))


def section(text: str) -> str:
    """The part of the document that `render` writes."""
    return text[text.index(FIRST) : text.index(LAST) + len(LAST)]


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *lines))


def _numbers() -> str:
    rows = ((str(number), row.arity, row.handler, row.caller) for number, row in enumerate(ROWS, 1))
    return _table(("", "arity", "the handler", "the caller"), rows)


def _expected() -> str:
    head = ("how the call ends", "the caller gets", "client span", "server span", "the handler")
    return _table(head, (_line(ending.name, ending.outcome) for ending in ENDINGS))


def _line(name: str, outcome: Outcome) -> tuple[str, ...]:
    return (
        name,
        outcome.caller or NONE,
        outcome.client or NONE,
        outcome.server or NONE,
        "is cancelled" if outcome.cancelled else "",
    )


def _impossible() -> str:
    why = {ending.name: {impossible(row, ending) for row in ROWS} - {""} for ending in ENDINGS}
    reasons = {reason: [name for name, whys in why.items() if reason in whys] for reason in set().union(*why.values())}
    cannot = [f"- where {reason}: {'; '.join(names)}" for reason, names in sorted(reasons.items())]
    return "\n".join(
        ["These cells do not exist:\n", *cannot, *(f"- {row}: {why}" for row, why in IMPOSSIBLE_ROWS.items())]
    )


def _count(verdicts: Mapping[tuple[Row, Ending], str]) -> str:
    clean = sum(verdict == CLEAN for verdict in verdicts.values())
    return f"With contrib {clean} of {len(verdicts)} cells are as expected. The others, by sign:"


def _contrib(verdicts: Mapping[tuple[Row, Ending], str]) -> str:
    lines = ((ending.name, *(verdicts.get((row, ending), NONE) for row in ROWS)) for ending in ENDINGS)
    return _table(("", *(str(number) for number, _ in enumerate(ROWS, 1))), lines)


def _meanings(verdicts: Mapping[tuple[Row, Ending], str]) -> str:
    count = {fault: sum(fault in verdict for verdict in verdicts.values()) for fault in Fault}
    rows = ((f"`{fault}`", MEANINGS[fault][0], str(count[fault]), _links(fault)) for fault in Fault if count[fault])
    marks = "; ".join(f"{mark}: {meaning}" for mark, meaning in MARKS.items())
    return "\n\n".join((_table(("sign", "what is wrong", "cells", "reported upstream"), rows), f"{marks}."))


def _links(fault: Fault) -> str:
    threads = ((repository, number) for repository, numbers in MEANINGS[fault][1].items() for number in numbers)
    return ", ".join(f"[{name.partition('/')[2]}#{it}](https://github.com/{name}/issues/{it})" for name, it in threads)
