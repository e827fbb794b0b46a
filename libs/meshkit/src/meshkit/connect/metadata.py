"""Metadata of gRPC as headers of HTTP: where the name ends with `-bin`, the values are bytes there and base64 here."""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from meshkit.server.context import Metadata

BINARY = "-bin"

Pairs = tuple[tuple[str, str | bytes], ...]


def from_headers(headers: Iterable[tuple[str, str]]) -> Pairs:
    """The metadata in headers, which may have many values of one name, as a list. What is not base64 stays text."""
    pairs = ((name, _decode(value) if name.endswith(BINARY) else (value,)) for name, value in headers)
    return tuple((name, value) for name, values in pairs for value in values)


def to_headers(metadata: Metadata) -> Iterator[tuple[str, str]]:
    """The headers of metadata."""
    for name, value in metadata:
        yield name, encode(value) if isinstance(value, bytes) else value


def encode(value: bytes) -> str:
    """Base64 without padding, as gRPC has it."""
    return b64encode(value).decode().rstrip("=")


def _decode(value: str) -> Iterable[str | bytes]:
    try:
        return [b64decode(f"{part.strip()}===") for part in value.split(",")]
    except binascii.Error:
        return [value]
