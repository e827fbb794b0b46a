"""The paths outside of the API: probes, which machines poll, and the documentation, which people read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meshkit.fastapi.prefix import route_path

if TYPE_CHECKING:
    from collections.abc import MutableMapping

PROBES = frozenset({"/livez", "/readyz", "/metrics"})
"""Requests for these get no log lines and no trace headers."""

DOCS, OPENAPI, ASSETS = "/docs", "/openapi.json", "/docs/assets"

UNTRACED = PROBES | {"/", DOCS, OPENAPI}
"""Requests for these, and for paths below ASSETS, make no spans and no metrics."""


def is_untraced(scope: MutableMapping[str, Any]) -> bool:
    """Whether an ASGI scope is a request that makes no spans and no metrics."""
    path = route_path(scope)
    return path in UNTRACED or path.startswith(f"{ASSETS}/")
