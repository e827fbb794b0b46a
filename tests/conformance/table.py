"""The conformance table of RPC traces: rows, columns, and the expected outcome of every cell.

A row is an arity with the form of its handler and of its caller. A column is a way in which a call ends. Each cell is
one call. Expected are exactly one client span and one server span, both ended, in the caller's trace, the server span
below the client span, each with the status code of its `Outcome` and the span status that the semantic conventions
define for that code, at most one exception event, and no log at WARNING or above by asyncio, grpc or opentelemetry.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Row:
    """An arity, with the forms in which its handler and its caller receive and send messages."""

    arity: str
    handler: str
    caller: str

    @property
    def streams_requests(self) -> bool:
        return self.arity.startswith("stream-")

    @property
    def streams_responses(self) -> bool:
        return self.arity.endswith("-stream")

    @property
    def method(self) -> str:
        """The row's own method of the echo service, such as `UnaryStream02`."""
        return f"{self.arity.title().replace('-', '')}{ROWS.index(self) + 1:02}"

    def __str__(self) -> str:
        return f"{self.arity}: {self.handler}; {self.caller}"


@dataclass(frozen=True)
class Outcome:
    """How a call ends: for its caller, in both spans (None without a span), and for the handler.

    `caller` is a status code, the name of an exception, or two of these joined by " or ".

    `started` is whether the handler must have received its first request, if observable, and `cancelled` whether
    it must have been cancelled (or closed, if it is a generator).
    """

    caller: str
    client: str | None
    server: str | None
    cancelled: bool = False
    started: bool = True


def both(code: str) -> Outcome:
    """The server ends the call, with the same code everywhere."""
    return Outcome(code, code, code)


def one(code: str) -> Outcome:
    """The server has no span: the call never reached it, or it was killed."""
    return Outcome(code, code, None, started=False)


def client_killed(code: str) -> Outcome:
    """The client was killed with its span."""
    return Outcome("", None, code, cancelled=True)


def abandon(caller: str) -> Outcome:
    """The caller abandons the call, which cancels it."""
    return Outcome(caller, "CANCELLED", "CANCELLED", cancelled=True)


CANCELLED = abandon("CANCELLED")
TOO_LATE = Outcome("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED", cancelled=True)
WRITTEN_ON = replace(both("NOT_FOUND"), caller="NOT_FOUND or INTERNAL")  # grpc.aio's exception for a failed write
REFUSED = replace(both("DEADLINE_EXCEEDED"), started=False)
STOPPED = Outcome("UNAVAILABLE", "UNAVAILABLE", "CANCELLED", cancelled=True)


@dataclass(frozen=True, eq=False)
class Ending:
    """A way in which a call ends.

    Attributes:
        name: the column's head.
        outcome: the expected outcome.
        handler: what the handler does once it has started. It `answers`, it `waits` in its own code, it `reads` a
            request that does not arrive, it `writes` without end, or it fails.
        caller: what the caller does: it `stays` to the end, or leaves.
        timeout: the deadline of the call, in seconds.
    """

    name: str
    outcome: Outcome
    handler: str
    caller: str
    timeout: float = 30


ROWS = (
    Row("unary-unary", "returns", "awaits"),
    Row("unary-stream", "yields", "async for"),
    Row("unary-stream", "yields", "read"),
    Row("unary-stream", "context.write", "async for"),
    Row("unary-stream", "context.write", "read"),
    Row("stream-unary", "async for, returns", "iterator, awaits"),
    Row("stream-unary", "async for, returns", "write, awaits"),
    Row("stream-unary", "context.read, returns", "iterator, awaits"),
    Row("stream-unary", "context.read, returns", "write, awaits"),
    Row("stream-stream", "async for, yields", "iterator, async for"),
    Row("stream-stream", "async for, yields", "write, read"),
    Row("stream-stream", "async for, context.write", "iterator, async for"),
    Row("stream-stream", "async for, context.write", "write, read"),
    Row("stream-stream", "context.read, yields", "iterator, async for"),
    Row("stream-stream", "context.read, yields", "write, read"),
    Row("stream-stream", "context.read, context.write", "iterator, async for"),
    Row("stream-stream", "context.read, context.write", "write, read"),
)

IMPOSSIBLE_ROWS = {
    "a handler of a unary response that yields": "grpc.aio takes the one response that it returns",
    "a handler of a unary response that calls `context.write`": "the returned response would be a second one",
    "a handler of a unary request that iterates or calls `context.read`": "the one request is its argument",
}

ONE_RESPONSE = ("-unary", "there is one response, and no stream of them to leave")
ONE_REQUEST = ("unary-", "there is one request, and the handler has it")
IMPOSSIBLE = {"reads": ONE_REQUEST, "writes on": ONE_REQUEST, "breaks": ONE_RESPONSE, "drops": ONE_RESPONSE}
"""The actions that are impossible in some arities (by the start or end of their names), and why."""

# fmt: off
ENDINGS = (
    #      name                               outcome                    the handler      the caller
    Ending("ok",                              both("OK"),                "answers",       "stays"),
    Ending("abort",                           both("NOT_FOUND"),         "aborts",        "stays"),
    Ending("abort, caller writes on",         WRITTEN_ON,                "aborts",        "writes on"),
    Ending("abort_with_status",               both("UNAVAILABLE"),       "aborts richly", "stays"),
    Ending("service error",                   both("ALREADY_EXISTS"),    "refuses",       "stays"),
    Ending("unhandled exception",             both("INTERNAL"),          "crashes",       "stays"),
    Ending("client deadline",                 TOO_LATE,                  "waits",         "stays", timeout=1),
    Ending("client deadline, handler reads",  TOO_LATE,                  "reads",         "stays", timeout=1),
    Ending("deadline passed on arrival",      REFUSED,                   "answers",       "is early", timeout=1),
    Ending("budget spent before the call",    one("DEADLINE_EXCEEDED"),  "answers",       "has no time"),
    Ending("task cancelled",                  CANCELLED,                 "waits",         "task.cancel"),
    Ending("task cancelled, handler reads",   CANCELLED,                 "reads",         "task.cancel"),
    Ending("call.cancel()",                   CANCELLED,                 "waits",         "call.cancel"),
    Ending("asyncio.timeout",                 abandon("TimeoutError"),      "waits",         "asyncio.timeout"),
    Ending("TaskGroup sibling fails",         abandon("ExceptionGroup"),    "waits",         "TaskGroup"),
    Ending("consumer breaks early",           abandon("OK"),                "waits",         "breaks"),
    Ending("… while the handler writes",      abandon("OK"),                "writes",        "breaks"),
    Ending("… and drops the call",            abandon("OK"),                "waits",         "drops"),
    Ending("server killed",                   one("UNAVAILABLE"),        "waits",         "kills the server"),
    Ending("client killed",                   client_killed("CANCELLED"),     "waits",         "is killed"),
    Ending("client killed, handler reads",    client_killed("CANCELLED"),     "reads",         "is killed"),
    Ending("channel closed",                  CANCELLED,                 "waits",         "channel.close"),
    Ending("server stopped",                  STOPPED,                   "waits",         "server.stop"),
    Ending("nobody listens",                  one("UNAVAILABLE"),        "answers",       "finds nobody"),
)
# fmt: on


def impossible(row: Row, ending: Ending) -> str:
    """Why a cell cannot exist, or an empty text."""
    arity, reason = IMPOSSIBLE.get(ending.handler) or IMPOSSIBLE.get(ending.caller) or ("none", "")
    return reason if row.arity.startswith(arity) or row.arity.endswith(arity) else ""


def cells() -> list[tuple[Row, Ending]]:
    """Every cell that can exist."""
    return [(row, ending) for ending in ENDINGS for row in ROWS if not impossible(row, ending)]
