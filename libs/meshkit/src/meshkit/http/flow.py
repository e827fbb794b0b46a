"""Reading that pauses for two reasons, and writing that must make progress."""

from __future__ import annotations

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
