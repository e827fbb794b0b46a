"""The URL of a database, as a setting."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, WithJsonSchema
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from meshkit.database.libpq import FORMS, Server, is_postgresql, parse_server


def parse_url(url: str) -> Server | URL:
    """A PostgreSQL server, or the URL of a SQLite file for SQLAlchemy.

    Raises:
        ValueError: it is neither, or has a parameter that is invalid or not supported. It names the parameter.
    """
    return parse_server(url) if is_postgresql(url) else _parse_sqlite(url)


def _parse_sqlite(url: str) -> URL:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise ValueError(FORMS) from None
    if parsed.get_backend_name() != "sqlite" or parsed.database in {None, "", ":memory:"}:
        raise ValueError(FORMS)
    if parsed.query:
        raise ValueError("a SQLite file takes no parameters; write a ? in its name as %3F")
    return parsed.set(drivername="sqlite+aiosqlite")


def _validate(url: str) -> str:
    parse_url(url)
    return url


DatabaseUrl = Annotated[str, AfterValidator(_validate), WithJsonSchema({"type": "string", "format": "URL"})]
"""The type of a setting that names a database."""
