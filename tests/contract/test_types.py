"""meshkit's RPC code is typed: what a type checker cannot follow is rare there."""

from __future__ import annotations

import re

import pytest

from tests.repository import ROOT

UNTYPED = re.compile(r"\bAny\b|\bcast\(|type: ignore")
IMPORT = re.compile(r"\s*(from|import) ")
LIMIT = 20


def escapes(source: str) -> int:
    """How often a source text uses Any, a cast or an ignored error, apart from its imports."""
    return sum(len(UNTYPED.findall(line)) for line in source.splitlines() if not IMPORT.match(line))


def test_the_client_and_the_server_have_few_values_without_a_type() -> None:
    files = [path for wing in ("client", "server") for path in (ROOT / "libs/meshkit/src/meshkit" / wing).glob("*.py")]
    counts = {path.relative_to(ROOT): escapes(path.read_text(encoding="utf-8")) for path in files}
    assert 0 < sum(counts.values()) <= LIMIT, counts


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("from typing import Any, cast", 0),
        ("x: dict[Any, Any] = cast('X', y)", 3),
        ("x = y  # type: ignore[attr-defined] # why", 1),
        ("broadcast(Many)", 0),
    ],
)
def test_each_use_counts_but_no_import(source: str, expected: int) -> None:
    assert escapes(source) == expected
