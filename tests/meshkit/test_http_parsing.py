"""What the parser refuses: every part of a request that is not its body has a limit, and a problem as its response."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.meshkit.http_server import App, chunked, get, http_server, length, post, respond

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.types import Receive, Scope, Send

KIB, MIB = 1024, 1024 * 1024
FIELDS, TARGET = (431, "REQUEST_HEADER_FIELDS_TOO_LARGE"), (414, "URI_TOO_LONG")
CODING, VERSION = (501, "UNKNOWN_TRANSFER_CODING"), (505, "HTTP_VERSION_NOT_SUPPORTED")
INVALID = (400, "INVALID_HTTP")
HEAD = b"GET / HTTP/1.1\r\nHost: x\r\n"


async def refusals(parts: Sequence[bytes]) -> tuple[int, str]:
    """The status and reason of the only response to these bytes; the connection is then closed, and no app has run."""
    app = App()
    async with http_server(app) as server, server.connect() as client:
        await client.send(*parts)
        answer = await client.answer()
        assert answer.headers["connection"] == "close"
        assert await client.rest() == b""
    assert app.started == 0
    return answer.status, answer.reason


@pytest.mark.parametrize(
    ("parts", "refusal"),
    [
        ([HEAD + b"a:b\r\n" * 1_600_000], FIELDS),
        ([HEAD + b"a: b\r\n" * 100 + b"\r\n"], FIELDS),
        ([HEAD + b"a: " + b"b" * 8 * MIB], FIELDS),
        ([HEAD + b"a" * 8 * MIB], FIELDS),
        ([HEAD + b"a:" + b" " * 8 * MIB], FIELDS),
        ([HEAD + b"a: " + b"b" * 64 * KIB + b"\r\n\r\n"], FIELDS),
        ([HEAD, *[b"a: " + b"b" * KIB + b"\r\n"] * 64], FIELDS),
        ([b"GET /" + b"a" * 8 * MIB], TARGET),
        ([b"GET /" + b"a" * 64 * KIB + b" HTTP/1.1\r\nHost: x\r\n\r\n"], TARGET),
        ([b"GET /", *[b"a" * KIB] * 65], TARGET),
        ([b"GET / " + b" " * 65 * KIB], TARGET),
    ],
    ids=[
        "fields without end", "101 fields", "endless value", "endless name", "endless space", "long value",
        "in parts", "endless target", "long target", "target in parts", "endless space after the target",
    ],
)  # fmt: skip
async def test_a_head_without_end_is_refused(parts: list[bytes], refusal: tuple[int, str]) -> None:
    assert await refusals(parts) == refusal


async def test_a_head_may_have_100_fields_and_almost_64_kib() -> None:
    app = App()
    async with http_server(app) as server, server.connect() as client:
        await client.send(get("/", *(f"a: {'b' * 600}" for _ in range(99))))
        assert (await client.answer()).status == 200
        await client.send(get("/?" + "a" * 60_000))
        assert (await client.answer()).body == b"a" * 60_000
        await client.send(*(bytes([byte]) for byte in get("/?slow")))
        assert (await client.answer()).body == b"slow"


@pytest.mark.parametrize("version", ["HTTP/0.9", "HTTP/1.2", "HTTP/2.0", "HTTP/3", "HTTP/9.9", "HTTP/11.1"])
@pytest.mark.parametrize("split", [0, 20])
async def test_another_version_is_505(version: str, split: int) -> None:
    data = get("/12345678901", version=version)
    assert await refusals([data[:split], data[split:]] if split else [data]) == VERSION


@pytest.mark.parametrize("version", ["RTSP/1.0", "ICE/1.0", "http/1.1", "HTTP/1.1x", "HTTP/1.10x", "HTTP/", "x", ""])
async def test_what_is_no_version_is_400(version: str) -> None:
    assert await refusals([get(version=version)]) == INVALID


@pytest.mark.parametrize(
    ("data", "refusal"),
    [(b"GET /\r\n", INVALID), (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", VERSION), (b"\x16\x03\x01\x02\x00", INVALID)],
    ids=["HTTP/0.9", "HTTP/2", "TLS"],
)
async def test_another_protocol_is_refused_at_once(data: bytes, refusal: tuple[int, str]) -> None:
    assert await refusals([data]) == refusal


@pytest.mark.parametrize(
    "codings",
    [
        ["gzip"], ["identity"], ["gzip, chunked"], ["chunked, gzip"], ["chunked, chunked"], ["xchunked"],
        ["chunked", "chunked"], ["gzip", "chunked"], ["chunked", "identity"], ["identity, chunked"],
        ["\tdeflate ,chunked"], ["chunked;q=1"],
    ],
    ids=", then ".join,
)  # fmt: skip
async def test_a_transfer_coding_that_is_not_decoded_is_501(codings: list[str]) -> None:
    fields = [f"Transfer-Encoding: {coding}" for coding in codings]
    assert await refusals([get("/body", *fields, method="POST") + b"0\r\n\r\n"]) == CODING


@pytest.mark.parametrize(
    "data",
    [
        chunked("/body", "Content-Length: 5"),
        get("/body", "Content-Length: 5", "Transfer-Encoding: chunked"),
        get("/body", "Transfer-Encoding:"),
        get("/body", "Transfer-Encoding: chunked", version="HTTP/1.0"),
        get("/body", "Content-Length: 1", "Content-Length: 2"),
    ],
)
async def test_a_body_of_two_lengths_is_400(data: bytes) -> None:
    assert await refusals([data]) == INVALID


@pytest.mark.parametrize("coding", ["chunked", "CHUNKED", " chunked ", ",chunked"])
async def test_a_chunked_body_is_decoded_and_its_trailers_are_dropped(coding: str) -> None:
    app = App()
    body = b"3;a=b\r\nabc\r\n" + b"1\r\nd\r\n" * 70_000 + b"0\r\nTrailer: x\r\nHost: y\r\n\r\n"
    async with http_server(app) as server, server.connect() as client:
        await client.send(get("/body", f"Transfer-Encoding: {coding}", method="POST") + body)
        assert (await client.answer()).body == b"70003"
        assert [name for name, _ in app.fields] == [b"host", b"transfer-encoding"]
        await client.send(get("/?next"))
        assert (await client.answer()).body == b"next"


TRAILERS = [
    b"1\r\na\r\n0\r\n" + b"a:b\r\n" * 102,
    b"1\r\na\r\n0\r\na: " + b"b" * 70_000,
    b"1;" + b"a" * 70_000,
    b"1;a=b" + b"c" * 8 * MIB,
    (b"1;" + b"a" * 1000 + b"\r\na\r\n") * 70,
]


@pytest.mark.parametrize("rest", TRAILERS, ids=["fields", "long field", "extension", "endless", "many extensions"])
async def test_trailers_and_chunk_extensions_without_end_are_refused(rest: bytes) -> None:
    app = App()
    async with http_server(app) as server, server.connect() as client:
        await client.send(chunked("/body"), rest)
        answer = await client.answer()
        assert (answer.status, answer.reason, answer.headers["connection"]) == (*FIELDS, "close")
        assert await client.rest() == b""
    assert (app.started, app.cancelled) == (1, 1)


@pytest.mark.parametrize("rest", [TRAILERS[0], b"ZZ"], ids=["trailers", "not HTTP"])
async def test_a_response_that_has_begun_ends_with_its_connection(rest: bytes) -> None:
    app = App()
    async with http_server(app) as server, server.connect() as client:
        await client.send(chunked("/begun"))
        assert await client.reader.readuntil(b"begun\r\n")
        await client.send(rest)
        assert await client.rest() == b""


@pytest.mark.parametrize("rest", [TRAILERS[0], b"ZZ"], ids=["trailers", "not HTTP"])
async def test_after_a_complete_response_the_rest_of_a_broken_body_closes_the_connection(rest: bytes) -> None:
    async with http_server(App()) as server, server.connect() as client:
        await client.send(chunked("/?early"))
        assert (await client.answer()).body == b"early"
        await client.send(rest)
        assert await client.rest() == b""


@pytest.mark.parametrize(
    ("data", "refusal"),
    [
        (HEAD + b"a: b\r\n" * 101, FIELDS),
        (b"GET /" + b"a" * 70_000, TARGET),
        (get("/", "Transfer-Encoding: gzip"), CODING),
        (get(version="HTTP/2.0"), VERSION),
        (b"GET / HTTP/1.1\r\nno field\r\n\r\n", INVALID),
        (chunked("/body") + TRAILERS[0], FIELDS),
        (chunked("/body") + b"ZZ", INVALID),
    ],
    ids=["fields", "target", "coding", "version", "not a field", "trailers", "not a chunk"],
)
async def test_a_refusal_comes_after_the_responses_of_earlier_requests(data: bytes, refusal: tuple[int, str]) -> None:
    app = App()
    async with http_server(app) as server, server.connect() as client:
        await client.send(get("/wait?1") + get("/?2") + get("/wait?3"), data)
        app.free.set()
        answers = [await client.answer() for _ in range(3)]
        assert [(answer.body, answer.headers.get("connection")) for answer in answers] == [
            (b"1", None),
            (b"2", None),
            (b"3", None),
        ]
        last = await client.answer()
        assert (last.status, last.reason) == refusal
        assert await client.rest() == b""


async def test_a_client_that_sends_32_mib_before_it_reads_gets_the_refusal() -> None:
    async with http_server(App()) as server, server.connect() as client:
        await client.send(HEAD, *[b"a: b\r\n" * 10_000] * 560)
        assert (await client.answer()).status == 431


async def test_a_client_that_still_sends_gets_the_response_of_an_app_that_passes_the_cancellation_on() -> None:
    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await length(receive)
        except asyncio.CancelledError:
            await respond(send, b"cancelled")
            raise

    async with http_server(app) as server, server.connect() as client:
        await client.send(chunked("/"))
        await client.send(b"ZZ\r\n", *[b"a" * MIB] * 8)
        assert (await client.answer()).body == b"cancelled"


async def test_what_follows_a_refusal_is_dropped_within_limits() -> None:
    async with http_server(App(), discard_bytes=MIB) as server, server.connect() as client:
        with pytest.raises(ConnectionError):
            while True:
                await client.send(b"a" * MIB)


async def test_a_client_that_does_not_close_after_a_refusal_is_closed() -> None:
    async with http_server(App(), discard_seconds=0.05, sweep_seconds=0.01) as server, server.connect() as client:
        await client.send(b"\0")
        assert (await client.answer()).status == 400
        with pytest.raises(ConnectionError):
            while True:
                await client.send(b"a")


@pytest.mark.parametrize("target", ["/", "/wait", "/nothing"])
async def test_a_response_before_the_expected_body_closes_the_connection(target: str) -> None:
    app = App()
    app.free.set()
    async with http_server(app) as server, server.connect() as client:
        await client.send(get(target, "Content-Length: 20", "Expect: 100-continue", method="POST"))
        answer = await client.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        await client.send(get("/?next"))
        assert await client.rest() == b""
    assert app.started == 1


async def test_a_large_body_that_does_not_wait_for_100_continue_does_not_lose_its_response() -> None:
    async with http_server(App()) as server, server.connect() as client:
        await client.send(post("/", b"a" * 8 * MIB, "Expect: 100-continue"))
        answer = await client.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")


async def test_an_expected_body_that_is_read_keeps_the_connection() -> None:
    async with http_server(App()) as server, server.connect() as client:
        await client.send(get("/body", "Content-Length: 3", "Expect: 100-continue", method="POST"))
        assert (await client.answer()).status == 100
        await client.send(b"abc" + get("/?next"))
        assert [(await client.answer()).body for _ in range(2)] == [b"3", b"next"]


async def test_a_complete_request_with_expect_keeps_the_connection() -> None:
    async with http_server(App()) as server, server.connect() as client:
        await client.send(get("/", "Expect: 100-continue") + post("/", b"abc", "Expect: 100-continue") + get("/?next"))
        assert [(await client.answer()).headers.get("connection") for _ in range(3)] == [None] * 3


async def test_empty_lines_before_a_request_are_ignored() -> None:
    async with http_server(App()) as server, server.connect() as client:
        await client.send(b"\r\n\r\n" + get("/?1") + b"\r\n", b"\n\r" + get("/?2"))
        assert [(await client.answer()).body for _ in range(2)] == [b"1", b"2"]


@pytest.mark.timeout(60)
async def test_a_pipeline_of_any_length_is_answered_in_order_and_parsed_in_small_parts() -> None:
    app = App()
    count, padding = 1100, "X: " + 64 * "x"  # more than Python's limit of recursion, and than one read takes
    async with http_server(app) as server, server.connect() as client:
        sending = asyncio.create_task(client.send(b"".join(get(f"/?{number}", padding) for number in range(count))))
        assert [int((await client.answer()).body) for _ in range(count)] == list(range(count))
        await sending


async def test_the_host_of_an_absolute_target_replaces_the_host_field() -> None:
    app = App()
    async with http_server(app) as server, server.connect() as client:
        await client.send(b"GET HTTP://edge:8080/?x HTTP/1.1\r\nHost: other\r\n\r\n")
        assert (await client.answer()).body == b"x"
    assert app.fields == [(b"host", b"edge:8080")]
