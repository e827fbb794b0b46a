"""A client span for every statement that a SQLAlchemy engine sends during a traced request.

https://opentelemetry.io/docs/specs/semconv/db/sql/. Operation and table come from the statement's structure. The
query text has placeholders, so values never reach a span. Without a recording parent (polling, health checks,
migrations) there is no span.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary

from opentelemetry.semconv._incubating.attributes.db_attributes import DbSystemNameValues
from opentelemetry.semconv.attributes import db_attributes as db
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.semconv.attributes.server_attributes import SERVER_ADDRESS, SERVER_PORT
from opentelemetry.trace import SpanKind, Status, StatusCode, get_current_span
from sqlalchemy import Delete, Insert, Select, Table, Update, event
from sqlalchemy.exc import DBAPIError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sized

    from opentelemetry.trace import Span, Tracer
    from sqlalchemy import URL, Compiled, Connection, Engine
    from sqlalchemy.engine.interfaces import DBAPICursor, ExceptionContext, ExecutionContext

UNTRACED = "meshkit_untraced"
"""The execution option of a statement without its own span."""


class Description(NamedTuple):
    """The name and the attributes of a statement's spans."""

    name: str
    attributes: Mapping[str, str | int]


class StatementSpans:
    """Creates the spans of one engine, and those of statements that go to its driver without it."""

    def __init__(self, engine: Engine, tracer: Tracer) -> None:
        self._tracer = tracer
        self._common = _common(engine.url)
        self._open: WeakKeyDictionary[ExecutionContext, Span] = WeakKeyDictionary()
        event.listen(engine, "before_cursor_execute", self._before)
        event.listen(engine, "after_cursor_execute", self._after)
        event.listen(engine, "handle_error", self._on_error)

    def describe(self, statement: str, compiled: Compiled | None = None, batch: int = 1) -> Description:
        """Describes a statement that is sent once, or `batch` times in one message."""
        operation, table = _operation_and_table(compiled) if compiled else (statement.split(None, 1)[0].upper(), None)
        attributes = {**self._common, db.DB_QUERY_TEXT: statement}
        if batch > 1:
            operation = f"BATCH {operation}"
            attributes[db.DB_OPERATION_BATCH_SIZE] = batch
        attributes[db.DB_OPERATION_NAME] = operation
        if table:
            attributes[db.DB_COLLECTION_NAME] = str(table)  # in SQLAlchemy of a subclass, which is not plain
        return Description(f"{operation} {table or self._common[db.DB_NAMESPACE]}", attributes)

    @contextmanager
    def span(self, description: Description) -> Iterator[None]:
        """One span for a statement that the block sends, perhaps several times, untraced."""
        if not is_traced():
            yield
            return
        span = self._start(description)
        try:
            yield
        except BaseException as error:
            _fail(span, error)
            raise
        finally:
            span.end()

    def record(self, description: Description, begin: int, end: int, error: BaseException | None) -> None:
        """One span for a statement that has ended; times are nanoseconds since 1970."""
        span = self._start(description, begin)
        if error:
            _fail(span, error)
        span.end(end)

    def _before(
        self,
        _connection: Connection,
        _cursor: DBAPICursor,
        statement: str,
        parameters: Sized,
        context: ExecutionContext,
        executemany: bool,  # noqa: FBT001
    ) -> None:
        if UNTRACED in context.execution_options or not is_traced():
            return
        batch = len(parameters) if executemany else 1
        self._open[context] = self._start(self.describe(statement, context.compiled, batch))

    def _start(self, description: Description, begin: int | None = None) -> Span:
        name, attributes = description
        return self._tracer.start_span(name, kind=SpanKind.CLIENT, attributes=attributes, start_time=begin)

    def _after(
        self,
        _connection: Connection,
        _cursor: DBAPICursor,
        _statement: str,
        _parameters: object,
        context: ExecutionContext,
        _executemany: bool,  # noqa: FBT001
    ) -> None:
        if span := self._open.pop(context, None):
            span.end()

    def _on_error(self, failure: ExceptionContext) -> None:
        if failure.execution_context and (span := self._open.pop(failure.execution_context, None)):
            _fail(span, failure.sqlalchemy_exception or failure.original_exception)
            span.end()


def is_traced() -> bool:
    """Whether a statement that begins now has a span."""
    return get_current_span().is_recording()


def status_code(error: BaseException) -> str | None:
    """The database's own code of an error: PostgreSQL's SQLSTATE, or the name of SQLite's primary result code."""
    driver = error.driver_exception if isinstance(error, DBAPIError) else error
    sqlstate = getattr(driver, "sqlstate", None)
    return sqlstate or getattr(driver, "sqlite_errorname", None)


def _fail(span: Span, error: BaseException) -> None:
    code = status_code(error)
    if code:
        span.set_attribute(db.DB_RESPONSE_STATUS_CODE, code)
    span.set_attribute(ERROR_TYPE, code or f"{type(error).__module__}.{type(error).__qualname__}")
    span.set_status(Status(StatusCode.ERROR))


def _common(url: URL) -> dict[str, str | int]:
    if url.get_backend_name() == "sqlite":
        name = (url.database or "").rpartition("/")[2]
        return {db.DB_SYSTEM_NAME: DbSystemNameValues.SQLITE.value, db.DB_NAMESPACE: name}
    return {
        db.DB_SYSTEM_NAME: DbSystemNameValues.POSTGRESQL.value,
        db.DB_NAMESPACE: url.database or "",
        SERVER_ADDRESS: url.host or "localhost",
        SERVER_PORT: url.port or 5432,
    }


@lru_cache(maxsize=512)
def _operation_and_table(compiled: Compiled) -> tuple[str, str | None]:
    """The operation of a statement, and its table if it has exactly one."""
    match compiled.statement:
        case Insert() | Update() | Delete() as change:
            return change.__visit_name__.upper(), change.table.description
        case Select() as select:
            sources = select.get_final_froms()
            table = sources[0].name if len(sources) == 1 and isinstance(sources[0], Table) else None
            return "SELECT", table
        case _:
            return str(compiled).split(None, 1)[0].upper(), None
