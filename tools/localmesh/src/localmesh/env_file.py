"""Reads settings from the file `.env`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dotenv import load_dotenv
from dotenv.parser import parse_stream

from localmesh.settings import InvalidSettings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dotenv.parser import Binding

SHOWN = 40  # characters of an invalid line


def load(path: Path) -> frozenset[str]:
    """Adds the variables of the file to the environment, except those that it has already; returns their names.

    Raises:
        InvalidSettings: a line is not NAME=value.
    """
    if not path.is_file():
        return frozenset()
    with path.open(encoding="utf-8") as file:
        bindings = list(parse_stream(file))
    if faults := list(_faults(path, bindings)):
        raise InvalidSettings("\n".join(faults))
    load_dotenv(path)
    return frozenset(binding.key for binding in bindings if binding.key)


def _faults(path: Path, bindings: list[Binding]) -> Iterator[str]:
    for binding in bindings:
        if binding.error or (binding.key and binding.value is None):
            text = binding.original.string
            # The text begins with the empty lines above the invalid one.
            number = binding.original.line + text[: len(text) - len(text.lstrip())].count("\n")
            yield f'{path}, line {number}: "{_shown(text.strip())}" is not NAME=value'


def _shown(line: str) -> str:
    """The beginning of a line, without what may be a password."""
    name, equals, value = line.partition("=")
    shown = f"{name}{equals}{'…' if value else ''}"
    return shown if len(shown) <= SHOWN else f"{shown[:SHOWN]}…"
