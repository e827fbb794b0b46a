"""One request is one trace, which every response names."""

from __future__ import annotations

import asyncio
import logging
import re
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
import pytest_asyncio
from opentelemetry.trace import SpanKind, StatusCode

from api_edge import rules
from api_edge.rest.build import PROBLEMS, build_app
from api_edge.rules import ORDER_SECONDS
from inventory.servicer import InventoryServicer
from meshkit.fastapi.server import listen_socket, serve
from meshkit.lifecycle import Stop
from meshkit.telemetry.spans import Span
from meshkit.testing import SpanCapture
from tests.edge.mesh import Answer, Mesh, absent_server, assert_problem, get, mesh, post_order, wire
from tests.edge.trees import tree

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


pytestmark = pytest.mark.asyncio(loop_scope="module")

INVENTORY, PRICING = "aiomesh.inventory.v1.InventoryService", "aiomesh.pricing.v1.PricingService"
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mesh]:
    async with mesh(tmp_path_factory.mktemp("shop")) as shop:
        yield shop


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The logged warnings and errors, without those of asyncio about a slow machine."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno >= logging.WARNING and record.name != "asyncio"
    ]


def rpc(service: str, method: str, *statements: str) -> tuple[str, str, list[Any]]:
    """One RPC: the client's span, the server's span below it, and the database statements below that."""
    name = f"{INVENTORY if service == 'inventory' else PRICING}/{method}"
    children: list[Any] = [(service, statement, []) for statement in sorted(statements)]
    return ("api_edge", name, [(service, name, children)])


async def test_a_read_is_one_tree_from_http_to_both_databases(shop: Mesh) -> None:
    answer = await shop.get("/v1/products/TEA-0001")
    spans = await shop.spans(answer.trace_id)
    assert tree(spans) == [
        (
            "api_edge",
            "GET /v1/products/{sku}",
            [
                rpc("inventory", "GetStock", "SELECT stock"),
                rpc("pricing", "GetPrice", "SELECT pricing.db"),
            ],
        )
    ]
    assert {(span.name, span.kind) for span in spans if span.name.startswith("GET")} == {
        ("GET /v1/products/{sku}", SpanKind.SERVER)
    }
    assert {span.status.status_code for span in spans} == {StatusCode.UNSET}


async def test_an_order_is_one_tree(shop: Mesh) -> None:
    answer = await shop.order(("TEA-0001", 1))
    ((service, name, calls),) = tree(await shop.spans(answer.trace_id))
    assert (service, name) == ("api_edge", "POST /v1/orders")
    assert [(call[1], call[2][0][0]) for call in calls] == [
        (f"{INVENTORY}/ReserveStock", "inventory"),
        (f"{PRICING}/CreateQuote", "pricing"),
    ]
    for _, _, ((_, _, statements),) in calls:
        operations = {statement.partition(" ")[0] for _, statement, _ in statements}
        assert {"BEGIN", "INSERT", "COMMIT"} <= operations


async def order_id(shop: Mesh, answer: Answer) -> object:
    """The `order.id` in the trace of a response, which only the HTTP span may have."""
    (root, *others) = sorted(await shop.spans(answer.trace_id), key=lambda span: bool(span.parent))
    assert not [span for span in others if "order.id" in (span.attributes or {})]
    return (root.attributes or {}).get("order.id")


async def test_the_spans_of_reads_and_orders_are_plain(shop: Mesh) -> None:
    """One value of another type makes a span take several times as long."""
    answers = [
        await shop.get("/v1/products/TEA-0001"),
        await shop.get("/v1/products"),
        await shop.order(("TEA-0001", 1)),
        *await asyncio.gather(*(shop.get(f"/v1/products/TEA-000{n}") for n in range(1, 10))),
    ]
    spans = [span for answer in answers for span in await shop.spans(answer.trace_id)]
    assert {span.name for span in spans if not (isinstance(span, Span) and span.is_plain)} == set()


async def test_the_trace_of_every_request_for_an_order_has_its_id(shop: Mesh) -> None:
    order = await shop.order(("TEA-0001", 1), key="named")
    path, id_ = order.headers["Location"], order.body["id"]
    requests = [("GET", path), ("GET", path.upper().replace("/V1/ORDERS", "/v1/orders")), ("DELETE", path)]
    answers = [await shop.ask(method, path) for method, path in [*requests, ("POST", f"{path}/commit")]]
    assert [answer.status for answer in answers] == [200, 200, 200, 409]
    repeat = await shop.order(("TEA-0001", 1), key="named")
    assert [await order_id(shop, answer) for answer in (order, *answers, repeat)] == [id_] * 6


async def test_the_trace_of_a_rejected_order_has_its_id_unless_the_key_belongs_to_another_order(shop: Mesh) -> None:
    refused = await shop.order(("TEA-0001", 1_000_000), key="refused")
    assert_problem(refused, 409, "INSUFFICIENT_STOCK")
    assert await order_id(shop, refused) == rules.order_id("refused")
    await shop.order(("TEA-0001", 1), key="taken")
    other = await shop.order(("TEA-0001", 2), key="taken")
    assert_problem(other, 409, "REQUEST_ID_REUSED")
    invalid = await shop.order(("TEA-0001", 1), key="invalid", currency="x")
    assert_problem(invalid, 400, "UNKNOWN_CURRENCY")
    assert [await order_id(shop, answer) for answer in (other, invalid)] == [None, None]


async def test_the_trace_of_an_unknown_order_has_the_requested_id(shop: Mesh) -> None:
    unknown = "00000000-0000-0000-0000-000000000000"
    assert await order_id(shop, await shop.get(f"/v1/orders/{unknown}")) == unknown
    assert await order_id(shop, await shop.get("/v1/orders/x")) is None


async def test_the_http_span_has_the_attributes_of_the_conventions(shop: Mesh) -> None:
    answer = await shop.get("/v1/products/TEA-0001?currency=EUR")
    (span,) = [span for span in await shop.spans(answer.trace_id) if span.name.startswith("GET")]
    attributes = dict(span.attributes or {})
    assert attributes["http.request.method"] == "GET"
    assert attributes["http.route"] == "/v1/products/{sku}"
    assert attributes["http.response.status_code"] == 200
    assert attributes["url.path"] == "/v1/products/TEA-0001"
    assert attributes["url.query"] == "currency=EUR"
    assert attributes["url.scheme"] == "http"


@pytest.mark.parametrize(("path", "status"), [("/v1/products/NO-1", 404), ("/v1/products?quantity=0", 422)])
async def test_a_4xx_is_no_error_of_the_http_span(shop: Mesh, path: str, status: int) -> None:
    answer = await shop.get(path)
    (span,) = [span for span in await shop.spans(answer.trace_id) if span.name.startswith("GET")]
    assert (span.attributes or {})["http.response.status_code"] == status
    assert span.status.status_code is StatusCode.UNSET


async def test_a_5xx_is_an_error_of_the_http_span(tmp_path: Path) -> None:
    with absent_server() as address:
        async with mesh(tmp_path, inventory_target=address) as shop:
            answer = await shop.get("/v1/products/TEA-0001")
            (span,) = [span for span in await shop.spans(answer.trace_id) if span.name.startswith("GET")]
    assert (span.attributes or {})["http.response.status_code"] == 503
    assert span.status.status_code is StatusCode.ERROR


async def test_an_unexpected_exception_is_an_event_of_the_http_span(caplog: pytest.LogCaptureFixture) -> None:
    broken: Any = Broken()
    capture, stop, listener = SpanCapture("edge"), Stop(), listen_socket("127.0.0.1:0")
    app = build_app(broken, stop=stop, telemetry=capture.telemetry, trace_url="")
    server_task = asyncio.create_task(serve(app, problems=PROBLEMS, listener=listener, stop=stop))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1/products/TEA-0001"
    async with aiohttp.ClientSession() as http, http.get(url) as response:
        problem = await response.json(content_type="application/problem+json")
    stop.request()
    await server_task
    (span,) = capture.spans()
    assert (response.status, problem["reason"]) == (500, "INTERNAL")
    assert "a bug" not in str(problem)
    assert span.status.status_code is StatusCode.ERROR
    assert (span.attributes or {})["error.type"] == "500"
    assert [event.name for event in span.events] == ["exception"]
    assert len([record for record in caplog.records if record.exc_info]) == 1


class Broken:
    """A storefront with a bug."""

    async def product(self, *_: object, **__: object) -> None:
        raise LookupError("a bug")


CHUNKED = get("/v1/orders", Content_Type="application/json", Transfer_Encoding="chunked").replace(b"GET", b"POST", 1)


@pytest.mark.parametrize("parts", [[CHUNKED + b"ZZ"], [CHUNKED, b"ZZ"], [get("/v1/products/TEA-0001") + b"\0"]])
async def test_invalid_http_within_a_request_is_the_400_of_that_request(
    shop: Mesh, parts: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with wire(shop) as connection:
        for part in parts:
            await connection.send(part)
        answer = await connection.answer()
        assert await connection.rest() == b""
    assert_problem(answer, 400, "INVALID_HTTP")
    (span,) = [span for span in await shop.spans(answer.trace_id) if span.parent is None]
    assert (span.attributes or {})["http.response.status_code"] == 400
    assert span.status.status_code is StatusCode.UNSET
    assert [vars(record)["status"] for record in caplog.records if record.name == "api_edge.access"] == [400]
    assert warnings(caplog) == []


@pytest.mark.parametrize("data", [b"\0", get("/nothing").replace(b"GET", b"SING", 1)])
async def test_invalid_http_outside_of_a_request_is_a_400_without_a_trace(
    shop: Mesh, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with wire(shop) as connection:
        await connection.send(data)
        answer = await connection.answer()
        assert await connection.rest() == b""
    assert (answer.status, answer.body["reason"], answer.body["trace_id"]) == (400, "INVALID_HTTP", "")
    assert warnings(caplog) == []


async def test_an_offer_of_another_protocol_is_not_a_warning(shop: Mesh, caplog: pytest.LogCaptureFixture) -> None:
    async with wire(shop) as connection:
        await connection.send(get("/v1/products/TEA-0001", Connection="Upgrade", Upgrade="h2c"))
        assert (await connection.answer()).status == 200
    assert warnings(caplog) == []


OFFER = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2_Settings": "AAEAAEAAAAIAAAABAAMAAABk"}
ORDER = post_order(**OFFER)
IN_CHUNKS = ORDER.replace(b"Content-Length: ", b"Transfer-Encoding: chunked\r\nX: ")
HEAD, _, BODY = ORDER.partition(b"\r\n\r\n")


@pytest.mark.parametrize(
    "parts",
    [
        [ORDER],
        [HEAD + b"\r\n\r\n", BODY],
        [bytes([byte]) for byte in ORDER],
        [IN_CHUNKS.removesuffix(BODY) + b"%x\r\n" % len(BODY), BODY + b"\r\n0\r\n\r\n"],
    ],
    ids=["at once", "head and body", "bytes", "chunks"],
)
async def test_a_request_that_offers_another_protocol_is_served_in_http_1_and_so_are_later_ones(
    shop: Mesh, parts: list[bytes]
) -> None:
    async with wire(shop) as connection:
        for part in parts:
            await connection.send(part)
        await connection.send(get("/v1/products/TEA-0001", **OFFER) + get("/v1/products/TEA-0002"))
        answers = [await connection.answer() for _ in range(3)]
    assert [answer.status for answer in answers] == [201, 200, 200]
    assert [line["quantity"] for line in answers[0].body["lines"]] == [2]
    assert [product.body["sku"] for product in answers[1:]] == ["TEA-0001", "TEA-0002"]


@pytest.mark.parametrize("target", ["/v1/products", "http://x/y", "*"])
async def test_a_connect_is_rejected_and_the_next_request_is_served(shop: Mesh, target: str) -> None:
    async with wire(shop) as connection:
        await connection.send(get(target).replace(b"GET", b"CONNECT", 1) + get("/v1/products/TEA-0001"))
        refusal, success = await connection.answer(), await connection.answer()
    assert refusal.status in {404, 405}
    assert success.status == 200


async def test_the_trace_of_the_client_continues(shop: Mesh) -> None:
    answer = await shop.get("/v1/products/TEA-0001", headers={"traceparent": f"00-{TRACE}-{PARENT}-01"})
    assert answer.trace_id == TRACE
    assert len(tree(await shop.spans(TRACE), int(PARENT, 16))) == 1
    assert len(await shop.spans(TRACE)) == 7


async def test_the_longest_trace_state_and_baggage_do_not_fail_a_request(shop: Mesh) -> None:
    """OpenTelemetry passes on up to 8 KiB of each."""
    headers = {
        "traceparent": f"00-{TRACE[::-1]}-{PARENT}-01",
        "tracestate": ",".join(f"k{number}={'v' * 250}" for number in range(31)),
        "baggage": ",".join(f"k{number}={'v' * 100}" for number in range(75)),
    }
    assert (await shop.get("/v1/products/TEA-0001?strict=true", headers=headers)).status == 200


async def test_an_unsampled_trace_makes_no_spans_and_is_still_named(shop: Mesh) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    answer = await shop.get("/v1/products/TEA-0001", headers={"traceparent": f"00-{trace}-{PARENT}-00"})
    assert answer.trace_id == trace
    assert re.fullmatch(f"00-{trace}-[0-9a-f]{{16}}-00", answer.headers["traceresponse"])
    assert "Link" not in answer.headers
    assert await shop.spans(trace) == []


ANSWERS = [
    ("GET", "/v1/products", 200, {"inventory", "pricing"}),
    ("GET", "/v1/products/TEA-0001", 200, {"inventory", "pricing"}),
    ("GET", "/v1/products?sku=NO-1", 404, {"inventory", "pricing"}),
    ("GET", "/v1/products?page_token=x", 400, {"inventory"}),
    ("GET", "/v1/products?quantity=0", 422, set()),
    ("POST", "/v1/orders", 415, set()),
    ("GET", "/v1/orders/00000000-0000-0000-0000-000000000000", 404, {"inventory", "pricing"}),
    ("POST", "/v1/orders/00000000-0000-0000-0000-000000000000/commit", 404, {"pricing"}),
    ("DELETE", "/v1/orders/x", 404, set()),
    ("PUT", "/v1/orders", 405, set()),
    ("GET", "/v1/nothing", 404, set()),
    ("GET", "/nothing", 404, set()),
]


@pytest.mark.parametrize(("method", "path", "status", "services"), ANSWERS)
async def test_every_response_names_its_trace_and_the_time_of_each_backend(
    shop: Mesh, method: str, path: str, status: int, services: set[str]
) -> None:
    answer = await shop.ask(method, path)
    assert answer.status == status
    (root,) = [span for span in await shop.spans(answer.trace_id) if span.kind is SpanKind.SERVER and not span.parent]
    assert root.context is not None
    assert re.fullmatch(f"00-{answer.trace_id}-{root.context.span_id:016x}-0[13]", answer.headers["traceresponse"])
    assert answer.headers["Link"] == f'<http://traces.test/trace/{answer.trace_id}>; rel="trace"'
    timings = answer.headers["Server-Timing"].split(", ")
    assert all(re.fullmatch(r'[a-z]+(;desc="[A-Za-z]+")?;dur=[0-9.]+', timing) for timing in timings)
    assert {timing.partition(";")[0] for timing in timings} == services | {"total"}


async def test_without_a_trace_url_there_is_no_link(tmp_path: Path) -> None:
    async with mesh(tmp_path, trace_url="") as shop:
        answer = await shop.get("/v1/products/TEA-0001")
    assert "Link" not in answer.headers
    assert answer.trace_id


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics"])
async def test_probes_need_no_backend_and_make_no_trace(tmp_path: Path, path: str) -> None:
    with absent_server(silent=True) as address:
        async with mesh(tmp_path, inventory_target=address, pricing_target=address) as shop:
            answer = await shop.get(path)
            assert await shop.spans() == []
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert "X-Trace-Id" not in answer.headers


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", 307),
        ("/docs", 200),
        ("/openapi.json", 200),
        ("/docs/assets/swagger-ui.css", 200),
        ("/docs/assets/nothing.js", 404),
    ],
)
async def test_the_documentation_makes_log_lines_but_no_traces_and_no_metrics(
    tmp_path: Path, path: str, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with mesh(tmp_path) as shop:
        answer = await shop.get(path, headers={"traceparent": f"00-{TRACE}-{PARENT}-01"})
        assert await shop.spans() == []
        assert "http_server_request_duration" not in (await shop.get("/metrics")).text
    assert answer.status == status
    assert not {"X-Trace-Id", "traceresponse", "Link"} & answer.headers.keys()
    records = [vars(record) for record in caplog.records if record.name == "api_edge.access"]
    assert [(record["path"], record["status"]) for record in records] == [(path, status)]


async def test_a_path_that_only_starts_like_the_documentation_is_traced(shop: Mesh) -> None:
    for path in ("/docs/", "/docs/assetsX", "/v1/docs", "/openapi.json/"):
        answer = await shop.get(path)
        assert [span.name for span in await shop.spans(answer.trace_id)] == ["GET"]


async def test_metrics_have_the_durations_of_requests_and_calls(shop: Mesh) -> None:
    await shop.get("/v1/products/TEA-0001")
    text = (await shop.get("/metrics")).text
    assert re.search(r'http_server_request_duration_seconds_count{[^}]*http_route="/v1/products/{sku}"', text)
    assert re.search(rf'rpc_client_call_duration_seconds_count{{[^}}]*rpc_method="{INVENTORY}/GetStock"', text)


async def test_unknown_paths_and_methods_add_no_labels(tmp_path: Path) -> None:
    async with mesh(tmp_path) as shop:
        for number in range(20):
            await shop.get(f"/v1/{number}/nothing")
            await shop.get(f"/{number}")
            await shop.get(f"/v1/products/NO-{number}")
            await shop.ask("PATCH", f"/v1/orders/{number}")
            await shop.ask(["LINK", "PURGE", "MKCOL"][number % 3], f"/v1/products/{number}")
        text = (await shop.get("/metrics")).text
    assert labels(text, "http_route") == {"", "/v1/products/{sku}", "/v1/orders/{order_id}"}
    assert labels(text, "http_request_method") == {"GET", "PATCH", "_OTHER"}
    assert labels(text, "rpc_method") == {f"{INVENTORY}/GetStock", f"{PRICING}/GetPrice"}


def labels(metrics: str, name: str) -> set[str]:
    return set(re.findall(rf'{name}="([^"]*)"', metrics))


async def test_requests_in_one_pipeline_have_separate_traces(shop: Mesh) -> None:
    async with wire(shop) as connection:
        await connection.send(get("/v1/products/TEA-0001") * 3)
        answers = [await connection.answer() for _ in range(3)]
    assert len({answer.trace_id for answer in answers}) == 3
    for answer in answers:
        ((_, name, calls),) = tree(await shop.spans(answer.trace_id))
        assert (name, len(calls)) == ("GET /v1/products/{sku}", 2)


async def test_requests_in_one_pipeline_have_separate_time_budgets(shop: Mesh) -> None:
    async with wire(shop) as connection:
        await connection.send(get("/v1/products/TEA-0001", X_Request_Timeout_Ms="1") + get("/v1/products/TEA-0002"))
        spent, fresh = await connection.answer(), await connection.answer()
    assert (spent.status, fresh.status) == (504, 200)
    assert fresh.body["price"]


async def test_the_request_after_a_large_body_has_its_own_budget_and_trace(tmp_path: Path) -> None:
    """Because of its size the connection is paused and resumed from within the request."""
    left: list[float] = []

    class Watch(InventoryServicer):
        async def GetStock(self, request: Any, context: Any) -> Any:  # noqa: N802 - the name in the proto
            left.append(context.time_remaining())
            return await super().GetStock(request, context)

    async with mesh(tmp_path, inventory_servicer=Watch) as shop, wire(shop) as connection:
        await connection.send(post_order().replace(b"Length: ", b"Length: 1000") + b" " * 100_000)
        order = await connection.answer()
        await connection.send(get("/v1/products/TEA-0001", X_Request_Timeout_Ms="30000"))
        read = await connection.answer()
    assert (order.status, read.status) == (201, 200)
    assert order.trace_id != read.trace_id
    assert left[0] > ORDER_SECONDS
