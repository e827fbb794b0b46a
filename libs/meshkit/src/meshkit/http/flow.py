"""Reading that pauses for two reasons, and writing that is joined and must make progress."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.flow_control import FlowControl


class Flow(FlowControl):
    """uvicorn's flow control, which resumes reading whenever an app receives. While held, it does not."""

    is_held = False

    def hold(self) -> None:
        """Pauses reading until `release`."""
        self.is_held = True
        self.pause_reading()

    def release(self) -> None:
        """Resumes reading."""
        self.is_held = False
        self.resume_reading()

    def resume_reading(self) -> None:
        """Resumes reading, unless it is held."""
        if not self.is_held:
            super().resume_reading()


class WriteProgress:
    """Since when a client reads nothing.

    Attributes:
        written: the bytes of response bodies so far. Without heads and framing, so an app that writes is no progress.
    """

    __slots__ = ("_read", "_since", "written")

    def __init__(self) -> None:
        self.written = 0
        self._read = 0
        self._since = 0.0

    def stalled_seconds(self, unsent: int, now: float) -> float:
        """For how long the client has read nothing, if `unsent` bytes wait for it. To be called periodically."""
        read = self.written - unsent
        if not unsent or not self._since or read > self._read:
            self._read, self._since = read, now if unsent else 0.0
        return now - self._since if unsent else 0.0


class HeadAndBody:
    """A transport for one response, which passes its head on together with the first part of its body.

    uvicorn writes them separately, and uvloop hands each of the two to the kernel at once. A head without a body in the
    same turn of the event loop is passed on at the end of the turn.
    """

    __slots__ = ("_head", "_is_new", "_transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head = b""
        self._is_new = True

    def write(self, data: bytes) -> None:
        """Keeps the first part of the response, and passes the others on."""
        if self._is_new:
            self._is_new = False
            self._head = data
            asyncio.get_running_loop().call_soon(self.flush)
        elif self._head:
            self._transport.write(self._head + data)
            self._head = b""
        else:
            self._transport.write(data)

    def flush(self) -> None:
        """Passes on what is kept."""
        if self._head:
            self._transport.write(self._head)
            self._head = b""

    def close(self) -> None:
        """Closes the connection after what is kept."""
        self.flush()
        self._transport.close()

    def is_closing(self) -> bool:
        """Whether the connection is closed or is being closed."""
        return self._transport.is_closing()
