"""Reads in which each statement is compiled once, and which then use the driver without SQLAlchemy.

SQLAlchemy's work on a statement costs many times what SQLite or asyncpg needs to run it. A statement is still declared
in SQLAlchemy, which also converts its parameters and the columns of its rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVarTuple, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from sqlalchemy import Dialect
    from sqlalchemy.sql.compiler import ExpandedState
    from sqlalchemy.sql.selectable import TypedReturnsRows

    from meshkit.database.tracing import Description, StatementSpans

    Parameters = Mapping[str, Any]
    Piece = Callable[[Parameters], Iterable[Any]]
    Processor = Callable[[Any], Any]

Ts = TypeVarTuple("Ts")


class Read(NamedTuple):
    """A statement and its arguments, as the driver gets them."""

    text: str
    arguments: Sequence[Any]
    description: Description


class Reader(Protocol):
    """Runs reads."""

    async def fetch(self, read: Read, patience: float) -> Sequence[Sequence[Any]]:
        """The rows of a read that waits up to `patience` seconds for a connection.

        Raises:
            TimeoutError: it has waited for so long.
            OSError: there is no connection.
            sqlite3.Error, asyncpg.PostgresError: the statement failed.
        """
        ...


class Reads:
    """Runs statements by a reader, and keeps them compiled.

    Args:
        reader: the caller closes it.
        dialect: that of the database.
        spans: describes the statements.
    """

    def __init__(self, reader: Reader, dialect: Dialect, spans: StatementSpans) -> None:
        self._reader = reader
        self._dialect = dialect
        self._spans = spans
        self._queries: dict[TypedReturnsRows[*tuple[Any, ...]], Query[*tuple[Any, ...]]] = {}

    async def fetch(
        self, statement: TypedReturnsRows[*Ts], parameters: Parameters, patience: float
    ) -> Sequence[tuple[*Ts]]:
        """The rows of a constant statement. Raises what Reader.fetch raises."""
        query = self._compile(statement)
        return query.convert(await self._reader.fetch(query.bind(parameters), patience))

    def _compile(self, statement: TypedReturnsRows[*Ts]) -> Query[*Ts]:
        if statement not in self._queries:
            self._queries[statement] = Query(statement, self._dialect, self._spans)
        return cast("Query[*Ts]", self._queries[statement])


class Query(Generic[*Ts]):
    """A statement, compiled for one database. Each combination of lengths of its lists is expanded once, too.

    Args:
        statement: has a `bindparam` for each value that changes.
        dialect: that of the database.
        spans: describes the statement.
    """

    def __init__(self, statement: TypedReturnsRows[*Ts], dialect: Dialect, spans: StatementSpans) -> None:
        self._compiled = statement.compile(dialect=dialect)
        self._spans = spans
        self._lists = [name for name, bind in self._compiled.binds.items() if bind.expanding]
        self._expanded: dict[tuple[int, ...], _Expanded] = {}
        types = [column.type.dialect_impl(dialect) for column in statement.exported_columns]
        processors = [type_.result_processor(dialect, None) for type_ in types]
        self._converters = [(at, process) for at, process in enumerate(processors) if process]

    def bind(self, parameters: Parameters) -> Read:
        """The read with these parameters."""
        lengths = tuple(len(parameters[name]) for name in self._lists)
        expanded = self._expanded.get(lengths)
        if expanded is None:
            expanded = self._expanded[lengths] = self._expand(parameters)
        return Read(
            expanded.text,
            [value for piece in expanded.pieces for value in piece(parameters)],
            expanded.description,
        )

    def convert(self, rows: Sequence[Sequence[Any]]) -> Sequence[tuple[*Ts]]:
        """The rows with the types of the columns."""
        if self._converters:
            rows = [self._convert(row) for row in rows]
        return cast("Sequence[tuple[*Ts]]", rows)

    def _convert(self, row: Sequence[Any]) -> tuple[Any, ...]:
        values = list(row)
        for at, process in self._converters:
            values[at] = process(values[at])
        return tuple(values)

    def _expand(self, parameters: Parameters) -> _Expanded:
        state = self._compiled.construct_expanded_state(parameters)
        pieces = tuple(self._pieces(state, parameters))
        return _Expanded(state.statement, pieces, self._spans.describe(state.statement, self._compiled))

    def _pieces(self, state: ExpandedState, parameters: Parameters) -> Iterator[Piece]:
        """One piece for each parameter, list, or constant of the statement."""
        lists = {names[0]: name for name, names in state.parameter_expansion.items() if names}
        others = {each for names in state.parameter_expansion.values() for each in names[1:]}
        for name in state.positiontup or ():
            if name in lists:
                yield _list_piece(lists[name], self._processor(lists[name]))
            elif name in parameters:
                yield _piece(name, self._processor(name))
            elif name not in others:
                yield _constant_piece(state.parameters[name], self._processor(name))

    def _processor(self, name: str) -> Processor | None:
        type_ = self._compiled.binds[name].type
        return type_.dialect_impl(self._compiled.dialect).bind_processor(self._compiled.dialect)


@dataclass(frozen=True, slots=True)
class _Expanded:
    """A query whose lists have certain lengths; its `pieces` return its arguments, in their order."""

    text: str
    pieces: tuple[Piece, ...]
    description: Description


def _list_piece(name: str, process: Processor | None) -> Piece:
    if process:
        return lambda parameters: map(process, parameters[name])
    return lambda parameters: cast("Iterable[Any]", parameters[name])


def _piece(name: str, process: Processor | None) -> Piece:
    if process:
        return lambda parameters: (process(parameters[name]),)
    return lambda parameters: (parameters[name],)


def _constant_piece(value: object, process: Processor | None) -> Piece:
    constant = (process(value) if process else value,)
    return lambda _: constant
