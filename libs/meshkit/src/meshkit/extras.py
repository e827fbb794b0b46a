"""The extras of meshkit: packages that some of its parts need, and that `pip install meshkit` does not bring."""

from __future__ import annotations

from importlib.util import find_spec

MODULES = {
    "connect": ("connectrpc", "fastapi", "starlette", "uvicorn", "httptools"),
    "contrib": ("opentelemetry.instrumentation.grpc",),
    "database": ("sqlalchemy", "greenlet", "alembic", "aiosqlite", "asyncpg"),
    "fastapi": ("fastapi", "starlette", "uvicorn", "httptools"),
    "granian": ("granian", "uvicorn", "httptools"),
    "http": ("uvicorn", "httptools"),
    "hypercorn": ("hypercorn", "uvicorn", "httptools"),
    "prometheus": ("prometheus_client", "opentelemetry.exporter.prometheus"),
}
"""What each extra lets one import."""


def require(extra: str) -> None:
    """Raises ImportError, which names the extra to install, unless all of its packages are installed."""
    if missing := [module for module in MODULES[extra] if not _is_installed(module)]:
        raise ImportError(f"{missing[0]} is not installed: pip install 'meshkit[{extra}]'", name=missing[0])


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of the package that it is in
        return False
