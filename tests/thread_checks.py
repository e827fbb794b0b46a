"""The thread checks of asyncio's debug mode, without the stacks of each callback, which double the CPU time."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asyncio import Handle
    from collections.abc import Callable


def check_threads(loop: Any) -> None:
    """Makes a call of an event loop from another thread raise RuntimeError."""
    for name in ("call_soon", "call_at"):
        setattr(loop, name, _checked(loop, getattr(loop, name)))


def _checked(loop: Any, method: Callable[..., Handle]) -> Callable[..., Handle]:
    @wraps(method)
    def checked(*arguments: Any, **options: Any) -> Handle:
        loop._check_thread()
        return method(*arguments, **options)

    return checked
