"""One HTTP/2 connection, whose streams a test begins, resets and reads one by one."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, ResponseReceived, StreamEnded, StreamReset
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes
from hyperframe.frame import DataFrame

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator

Fields = Mapping[str, str]

NONE: Fields = {}
JSON: Fields = {"Content-Type": "application/json"}

GOAWAY, HEAD_BYTES, MAX_BYTES = 7, 9, 16_384


@dataclass
class Response:
    """What one stream has received.

    Attributes:
        reset: why the server reset it.
    """

    fields: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    reset: int | None = None
    is_complete: bool = False

    @property
    def status(self) -> int:
        return int(self.fields[":status"])

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Http2:
    """A connection. It reads all that the server sends.

    Attributes:
        goaway: the last stream that the server serves, by its newest GOAWAY.
        closed: the server has closed the connection.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._http2 = H2Connection(H2Configuration(header_encoding="utf-8"))
        self._responses: defaultdict[int, Response] = defaultdict(Response)
        self._grown = asyncio.Condition()
        self.goaway: int | None = None
        self.closed = False

    async def begin(self) -> None:
        self._http2.initiate_connection()
        await self._flush()

    async def post(self, path: str, body: bytes, fields: Fields = JSON, *, ends: bool = True) -> int:
        """Sends a POST, with the end of its body only if it `ends`; returns its stream."""
        stream = await self._send_head("POST", path, fields, ends=False)
        await self.send(stream, body, ends=ends)
        return stream

    async def begin_get(self, path: str, fields: Fields = NONE) -> int:
        """Sends a GET, and returns its stream."""
        return await self._send_head("GET", path, fields, ends=True)

    async def _send_head(self, method: str, path: str, fields: Fields, *, ends: bool) -> int:
        stream = self._http2.get_next_available_stream_id()
        head = {":method": method, ":scheme": "http", ":authority": "x", ":path": path}
        head |= {name.lower(): value for name, value in fields.items()}
        self._http2.send_headers(stream, list(head.items()), end_stream=ends)
        await self._flush()
        return stream

    async def send(self, stream: int, body: bytes, *, ends: bool = True) -> None:
        """Sends a part of a body, as fast as the server takes it. Raises ConnectionError."""
        while body:
            async with self._grown:
                await self._grown.wait_for(lambda: self._room(stream) > 0 or self.closed)
            if self.closed:
                raise ConnectionError("the connection ended within a body")
            size = self._room(stream)
            self._http2.send_data(stream, body[:size])
            body = body[size:]
            await self._flush()
        if ends:
            self._http2.end_stream(stream)
            await self._flush()

    async def send_late(self, stream: int, body: bytes) -> None:
        """Sends the end of a body, although the stream may be closed: it was on the way when the response came."""
        self._writer.write(DataFrame(stream, body, flags=["END_STREAM"]).serialize())
        await self._writer.drain()

    async def reset(self, stream: int) -> None:
        """Cancels a request."""
        self._http2.reset_stream(stream, ErrorCodes.CANCEL)
        await self._flush()

    async def get(self, path: str, fields: Fields = NONE) -> Response:
        """The response of a GET."""
        return await self.response(await self.begin_get(path, fields))

    async def close_windows(self) -> None:
        """Takes nothing of the bodies of further responses."""
        self._http2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 0})
        await self._flush()

    async def response(self, stream: int) -> Response:
        """The complete response of a stream, or why it was reset. Raises ConnectionError if it never comes."""
        async with self._grown:
            await self._grown.wait_for(lambda: self._is_over(stream))
        response = self._responses[stream]
        if not response.is_complete and response.reset is None:
            raise ConnectionError("the connection ended without a response")
        return response

    async def is_served(self, stream: int) -> bool:
        """Whether a stream gets a response, once it has ended or the server has said that it will not serve it."""
        async with self._grown:
            await self._grown.wait_for(lambda: self._is_over(stream) or (self.goaway or stream) < stream)
        return self._responses[stream].is_complete

    def reset_of(self, stream: int) -> int | None:
        """Why the server has reset a stream."""
        return self._responses[stream].reset

    async def until_goaway(self) -> int | None:
        """The last stream that the server serves; None if it closes the connection without a GOAWAY."""
        async with self._grown:
            await self._grown.wait_for(lambda: self.goaway is not None or self.closed)
        return self.goaway

    async def read(self) -> None:
        """Reads until the connection is closed."""
        with suppress(OSError, asyncio.IncompleteReadError, ProtocolError):
            while True:
                await self._read_frame()
                await self._notify()
        self._writer.close()
        self.closed = True
        await self._notify()

    async def _read_frame(self) -> None:
        """Reads one frame. A GOAWAY is not for h2, which would read nothing after it."""
        head = await self._reader.readexactly(HEAD_BYTES)
        length = int.from_bytes(head[:3], "big")
        if length > MAX_BYTES:
            raise ProtocolError("the server does not speak HTTP/2")
        payload = await self._reader.readexactly(length)
        if head[3] == GOAWAY:
            self.goaway = int.from_bytes(payload[:4], "big")
            return
        for event in self._http2.receive_data(head + payload):
            self._handle(event)
        await self._flush()

    def _room(self, stream: int) -> int:
        return min(self._http2.local_flow_control_window(stream), self._http2.max_outbound_frame_size)

    def _is_over(self, stream: int) -> bool:
        response = self._responses[stream]
        return response.is_complete or response.reset is not None or self.closed

    def _handle(self, event: object) -> None:
        match event:
            case ResponseReceived():
                self._responses[event.stream_id].fields |= {str(name): str(value) for name, value in event.headers}
            case DataReceived():
                self._responses[event.stream_id].body += event.data
                self._http2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case StreamEnded():
                self._responses[event.stream_id].is_complete = True
            case StreamReset():
                self._responses[event.stream_id].reset = event.error_code

    async def _flush(self) -> None:
        self._writer.write(self._http2.data_to_send())
        await self._writer.drain()

    async def _notify(self) -> None:
        async with self._grown:
            self._grown.notify_all()


@asynccontextmanager
async def http2(address: tuple[str, int], context: ssl.SSLContext | None = None) -> AsyncIterator[Http2]:
    """A connection by prior knowledge, or over TLS; it is closed at the end of the block."""
    reader, writer = await asyncio.open_connection(*address, ssl=context)
    connection = Http2(reader, writer)
    await connection.begin()
    reading = asyncio.create_task(connection.read())
    try:
        yield connection
    finally:
        writer.close()
        await reading
