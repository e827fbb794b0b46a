"""The paths that are not the API: those that machines poll, and the documentation that people read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import MutableMapping

PROBES = frozenset({"/livez", "/readyz", "/metrics"})
"""Polled by machines: no log lines, no trace headers."""

DOCS, OPENAPI, ASSETS = "/docs", "/openapi.json", "/docs/assets"

UNTRACED = PROBES | {"/", DOCS, OPENAPI}
"""The paths whose requests make neither spans nor metrics, beside those below ASSETS."""


def is_untraced(scope: MutableMapping[str, Any]) -> bool:
    """Whether an ASGI scope is a request for one of them."""
    path: str = scope["path"]
    return path in UNTRACED or path.startswith(f"{ASSETS}/")
