"""The deadline of each call: the shortest of its own timeout, the channel's limit and the budget of the request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshkit.deadline import call_timeout

if TYPE_CHECKING:
    from typing import Unpack

    from meshkit.client.types import Call, CallOptions, Concern, Multicallable, Request


def deadlines(limit: float) -> Concern:
    """Gives each call a deadline of at most `limit` seconds."""

    def surround(_method: str, multicallable: Multicallable[Request, Call]) -> Multicallable[Request, Call]:
        def start(request: Request, /, **options: Unpack[CallOptions]) -> Call:
            timeout = options.get("timeout")
            options["timeout"] = call_timeout(limit if timeout is None else min(timeout, limit))
            return multicallable(request, **options)

        return start

    return surround
