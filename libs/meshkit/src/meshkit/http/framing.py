"""Cuts the bytes of a connection into pieces that never reach beyond one head, and counts what is not body.

llhttp reports no positions and has no limits, and httptools collects a field until it is complete, so each piece is
counted before it is parsed. A head ends with an empty line (RFC 9112, section 2.1), as does the last chunk with its
trailers (section 7.1); a body with a Content-Length is as long as that.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from meshkit.http.refusals import FIELDS_TOO_LARGE, INVALID_HTTP, TARGET_TOO_LONG, UNKNOWN_VERSION, Refused

if TYPE_CHECKING:
    from meshkit.http.limits import Limits

EMPTY_LINE, LINE_END = b"\r\n\r\n", b"\r\n"
VERSIONS = (b" HTTP/1.1", b" HTTP/1.0")
OTHER_VERSION = re.compile(rb" HTTP/\d+(\.\d+)?\Z")

TAIL = 16
"""How many bytes of an incomplete head are remembered, to find its line ends and its version across pieces."""

CHUNK_BYTES = 16
"""The part of each chunk's framing that does not count: bodies in small chunks are valid."""


class Framing:
    """Where a connection is within its requests.

    Attributes:
        in_head: a request has begun and its head is incomplete.
        in_body: the head of a request is complete and its body is not.
        has_line: the request line of the present head is complete.
    """

    __slots__ = (
        "_body_left",
        "_chunks",
        "_limits",
        "_line_bytes",
        "_overhead",
        "_tail",
        "has_line",
        "in_body",
        "in_head",
    )

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.end_message()

    def end_message(self) -> None:
        """The request is complete."""
        self.in_head = self.in_body = self.has_line = False
        self._body_left = self._overhead = self._line_bytes = self._chunks = 0
        self._tail = b""

    def end_head(self, content_length: int) -> None:
        """The head is complete. A body without a Content-Length is chunked."""
        self.in_head, self.in_body = False, True
        self._body_left, self._overhead = content_length, 0

    def begin_chunk(self) -> None:
        """The line with the size of a chunk is complete."""
        self._chunks += 1

    def body(self, length: int) -> None:
        """A part of the body has been parsed."""
        if self._body_left:
            self._body_left -= length
        else:
            self._overhead -= length

    def piece(self, data: bytes, start: int) -> int:
        """The end of the piece to parse next. Raises Refused for a head that is too large or not of HTTP/1."""
        if self._body_left:
            return min(len(data), start + self._body_left)
        end = self._end(data, start)
        if self.in_body:
            self._overhead += end - start
        else:
            self.in_head = True
            self._measure_head(data, start, end)
        self._tail = b"" if data.endswith(EMPTY_LINE, start, end) else (self._tail + data[start:end])[-TAIL:]
        return end

    def check_chunks(self) -> None:
        """Raises Refused if chunk extensions and trailers are too large. To be called after each piece."""
        if self.in_body and not self._body_left:
            self._overhead = max(0, self._overhead - CHUNK_BYTES * self._chunks)
            self._chunks = 0
            if self._overhead > self._limits.head_bytes:
                raise Refused(FIELDS_TOO_LARGE)

    def _end(self, data: bytes, start: int) -> int:
        tail = self._tail[-3:]
        if tail and (seam := (tail + data[start : start + 3]).find(EMPTY_LINE)) >= 0:
            return start + seam + len(EMPTY_LINE) - len(tail)
        end = data.find(EMPTY_LINE, start)
        return len(data) if end < 0 else end + len(EMPTY_LINE)

    def _measure_head(self, data: bytes, start: int, end: int) -> None:
        if not self.has_line:
            self._measure_line(data, start, end)
        self._overhead += end - start
        if self._overhead > self._limits.head_bytes:
            is_target = not self.has_line or self._line_bytes > self._limits.head_bytes // 2
            raise Refused(TARGET_TOO_LONG if is_target else FIELDS_TOO_LARGE)

    def _measure_line(self, data: bytes, start: int, end: int) -> None:
        """Checks the version, because llhttp also accepts HTTP/0.9, HTTP/2.0 and RTSP/1.0."""
        line, begin = (self._tail + data[start:end], 0) if self._tail else (data, start)
        line_end = line.find(LINE_END, begin)
        if line_end < 0:
            return
        self.has_line = True
        self._line_bytes = self._overhead + line_end - begin
        if line[line_end - len(VERSIONS[0]) : line_end] not in VERSIONS:
            other = OTHER_VERSION.search(line, max(begin, line_end - TAIL), line_end)
            raise Refused(UNKNOWN_VERSION if other else INVALID_HTTP)
