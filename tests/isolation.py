"""Fails a unit test that tries to open a connection or to start a process."""

from __future__ import annotations

import sys
from functools import wraps
from typing import TYPE_CHECKING, Any

import grpc
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

EVENTS = frozenset(
    {
        "socket.bind",
        "socket.connect",
        "socket.getaddrinfo",
        "socket.sendto",
        "subprocess.Popen",
        "os.exec",
        "os.fork",
        "os.forkpty",
        "os.posix_spawn",
        "os.system",
    }
)
"""The audit events that a unit test must not cause: https://docs.python.org/3/library/audit_events.html."""

CALLS = [(module, name) for module in (grpc, grpc.aio) for name in ("server", "insecure_channel", "secure_channel")]
"""The functions that a unit test must not call, because gRPC's core opens sockets without an audit event.

They are replaced once and for all tests, because a module that imports one by its name keeps the function it got.
"""

_attempts: list[str] | None = None
"""The attempts of the running unit test; None if no unit test runs. Global, as audit hooks cannot be removed."""


def _refuse(attempt: str) -> None:
    if _attempts is not None:
        _attempts.append(attempt)
        pytest.fail(f"a unit test must not cause {attempt}")


def _audit(event: str, _arguments: tuple[object, ...], events: frozenset[str] = EVENTS) -> None:
    """The hook. `events` is an argument because the module's names are gone when Python exits."""
    if event in events:
        _refuse(event)


def _guard(module: ModuleType, name: str) -> None:
    real = getattr(module, name)

    @wraps(real)
    def guarded(*arguments: Any, **options: Any) -> Any:
        _refuse(f"{module.__name__}.{name}")
        return real(*arguments, **options)

    setattr(module, name, guarded)


sys.addaudithook(_audit)
for call in CALLS:
    _guard(*call)


@pytest.fixture(autouse=True)
def _isolation(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a unit test at its attempt, and again at its end, because its code may have caught the first failure."""
    global _attempts  # noqa: PLW0603
    if not request.node.get_closest_marker("unit"):
        yield
        return
    attempts = _attempts = []
    try:
        yield
    finally:
        _attempts = None
    assert not attempts
