"""The first steps of a new user, and the trace of each step."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import uuid
from typing import TYPE_CHECKING, Any

import aiohttp
import grpc
import psutil
import pytest

from aiomesh.storefront.v1 import storefront_service_pb2, storefront_service_pb2_grpc
from tests.e2e.local_mesh import LocalMesh, Mesh, call, order, pids_of_table, trace

if TYPE_CHECKING:
    from collections.abc import Iterator

INVENTORY = "aiomesh.inventory.v1.InventoryService"
PRICING = "aiomesh.pricing.v1.PricingService"

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(60)]


@pytest.fixture(
    scope="module",
    params=["tracebox", pytest.param("jaeger", marks=pytest.mark.jaeger)],
)
def mesh(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalMesh]:
    """The whole mesh, once with tracebox and once with the real Jaeger."""
    if request.param == "tracebox":
        yield request.getfixturevalue("shared_mesh")
        return
    environment = {"JAEGER_BIN": request.getfixturevalue("jaeger_bin")}
    with LocalMesh(tmp_path_factory.mktemp("state"), environment).running() as running:
        yield running


def pair(service: str, call: str) -> object:
    """A client span of the edge with its server span below."""
    return ("api_edge", call, [(service, call, [])])


async def test_the_table_names_every_process(mesh: LocalMesh) -> None:
    table = pids_of_table(mesh.printed)
    assert {"api_edge", "inventory", "pricing"} < set(table)
    for name in ("api_edge", "inventory", "pricing"):
        assert psutil.Process(table[name]).cmdline()[-2:] == ["-m", name]
    assert set(table.values()) == {child.pid for child in psutil.Process(mesh.process.pid).children()}


async def test_a_page_of_products(mesh: Mesh) -> None:
    answer = await call(mesh, "GET", "/v1/products?page_size=5")

    assert answer.status == 200
    assert len(answer.body["products"]) == 5
    assert answer.body["next_page_token"]
    root = await trace(mesh, answer.trace_id, spans=5)
    assert root.tree() == (
        "api_edge",
        "GET /v1/products",
        [pair("inventory", f"{INVENTORY}/ListStock"), pair("pricing", f"{PRICING}/BatchGetPrices")],
    )


async def test_one_product_in_yen(mesh: Mesh) -> None:
    answer = await call(mesh, "GET", "/v1/products/TEA-0001?currency=JPY&quantity=12")

    assert answer.status == 200
    price = answer.body["price"]
    assert (price["currency"], price["quantity"]) == ("JPY", 12)
    assert int(price["total"]) == 12 * int(price["unit_price"])
    assert answer.headers["Link"] == f'<{mesh.traces}/trace/{answer.trace_id}>; rel="trace"'

    root = await trace(mesh, answer.trace_id, spans=5)
    assert root.tree() == (
        "api_edge",
        "GET /v1/products/{sku}",
        [pair("inventory", f"{INVENTORY}/GetStock"), pair("pricing", f"{PRICING}/GetPrice")],
    )
    one, other = root.children
    assert max(one.start, other.start) < min(one.end, other.end), "the two calls did not overlap"
    databases = [leaf for client in root.children for leaf in client.children[0].children]
    assert [leaf.tags["db.system.name"] for leaf in databases] == [mesh.database] * 2


async def test_the_same_product_over_grpc(mesh: Mesh) -> None:
    async with grpc.aio.insecure_channel(mesh.grpc) as channel:
        stub: Any = storefront_service_pb2_grpc.StorefrontServiceStub(channel)
        call = stub.GetProduct(storefront_service_pb2.GetProductRequest(sku="TEA-0001", strict=True))
        product, trailing = (await call).product, dict(await call.trailing_metadata())

    assert (product.sku, product.price.unit_price.currency_code) == ("TEA-0001", "EUR")
    root = await trace(mesh, trailing["x-trace-id"], spans=5)
    assert root.tree() == (
        "api_edge",
        "aiomesh.storefront.v1.StorefrontService/GetProduct",
        [pair("inventory", f"{INVENTORY}/GetStock"), pair("pricing", f"{PRICING}/GetPrice")],
    )


async def test_an_order_from_reservation_to_commit(mesh: Mesh) -> None:
    before = (await call(mesh, "GET", "/v1/products/TEA-0002")).body["stock"]

    key = str(uuid.uuid4())
    first = await order(mesh, key, {"TEA-0002": 2})
    again = await order(mesh, key, {"TEA-0002": 2})
    other = await order(mesh, key, {"TEA-0002": 3})

    assert (first.status, again.status, other.status) == (201, 201, 409)
    assert first.body == again.body
    assert other.body["reason"] == "REQUEST_ID_REUSED"
    location = first.headers["Location"]
    assert location == f"/v1/orders/{first.body['id']}"
    stock = (await call(mesh, "GET", "/v1/products/TEA-0002")).body["stock"]
    assert (stock["reserved"], stock["available"]) == (before["reserved"] + 2, before["available"] - 2)

    assert (await call(mesh, "GET", location)).body == first.body
    commit = await call(mesh, "POST", f"{location}/commit")
    assert (commit.status, commit.body["state"]) == (200, "COMMITTED")
    assert (await call(mesh, "POST", f"{location}/commit")).body == commit.body
    deletion = await call(mesh, "DELETE", location)
    assert (deletion.status, deletion.body["reason"]) == (409, "RESERVATION_COMMITTED")

    stock = (await call(mesh, "GET", "/v1/products/TEA-0002")).body["stock"]
    assert (stock["on_hand"], stock["reserved"]) == (before["on_hand"] - 2, before["reserved"])


async def test_an_order_is_one_trace_with_its_transactions(mesh: Mesh) -> None:
    answer = await order(mesh, str(uuid.uuid4()), {"TEA-0003": 1})

    root = await trace(mesh, answer.trace_id, spans=5)
    assert root.tree() == (
        "api_edge",
        "POST /v1/orders",
        [pair("inventory", f"{INVENTORY}/ReserveStock"), pair("pricing", f"{PRICING}/CreateQuote")],
    )
    assert {span.tags["rpc.response.status_code"] for span in root.children} == {"OK"}
    assert not any("error" in span.tags for span in root.children)
    for client in root.children:
        statements = client.children[0].children
        assert {"BEGIN", "INSERT", "COMMIT"} <= {statement.tags["db.operation.name"] for statement in statements}


async def test_an_order_for_more_than_there_is(mesh: Mesh) -> None:
    before = (await call(mesh, "GET", "/v1/products/TEA-0001")).body["stock"]
    answer = await order(mesh, str(uuid.uuid4()), {"TEA-0001": 900_000})

    assert (answer.status, answer.body["reason"]) == (409, "INSUFFICIENT_STOCK")
    assert answer.body["metadata"]["sku"] == "TEA-0001"
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert (await call(mesh, "GET", "/v1/products/TEA-0001")).body["stock"]["reserved"] == before["reserved"]
    assert (await call(mesh, "GET", f"/v1/orders/{answer.body['instance'].rpartition('/')[2]}")).status == 404


@pytest.mark.parametrize(
    ("method", "path", "options", "status", "reason"),
    [
        ("GET", "/v1/products/NO-SUCH", {}, 404, "UNKNOWN_SKU"),
        ("GET", "/v1/products/TEA-0001?currency=XTS", {}, 400, "UNKNOWN_CURRENCY"),
        ("GET", "/v1/products?page_token=mine", {}, 400, "INVALID_PAGE_TOKEN"),
        ("GET", "/v1/orders/nonsense", {}, 404, "UNKNOWN_ORDER"),
        ("GET", "/v1/nothing", {}, 404, "UNKNOWN_ROUTE"),
        ("PATCH", "/v1/orders", {}, 405, "METHOD_NOT_ALLOWED"),
        ("POST", "/v1/orders", {"json": {"lines": [{"sku": "TEA-0001", "quantity": 0}]}}, 422, "INVALID_REQUEST"),
        ("POST", "/v1/orders", {"data": "{", "headers": {"Content-Type": "application/json"}}, 422, "INVALID_REQUEST"),
        ("POST", "/v1/orders", {"data": "x"}, 415, "UNSUPPORTED_MEDIA_TYPE"),
    ],
)
async def test_a_mistake_is_a_problem_with_a_trace(
    mesh: Mesh, method: str, path: str, options: dict[str, object], status: int, reason: str
) -> None:
    answer = await call(mesh, method, path, **options)

    assert (answer.status, answer.body["reason"]) == (status, reason)
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.body["trace_id"] == answer.trace_id
    if status == 422:
        assert [error["field"] for error in answer.body["errors"]]
    async with aiohttp.ClientSession() as session, session.get(f"{mesh.traces}/trace/{answer.trace_id}") as page:
        assert page.status == 200


async def test_an_unknown_product_is_not_an_error_of_the_edge_and_both_calls_have_a_status(mesh: Mesh) -> None:
    answer = await call(mesh, "GET", "/v1/products/NO-SUCH")

    root = await trace(mesh, answer.trace_id, spans=4, at_most=5)
    assert "error" not in root.tags
    codes = {client.name.rpartition("/")[2]: client.tags["rpc.response.status_code"] for client in root.children}
    assert codes["GetStock"] == "NOT_FOUND"
    assert codes["GetPrice"] in {"NOT_FOUND", "CANCELLED"}


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
async def test_the_three_printed_commands_work_when_pasted(mesh: LocalMesh) -> None:
    commands = [line for line in mesh.printed if line.startswith(("curl ", "echo "))]
    assert len(commands) == 3
    done = await asyncio.to_thread(
        subprocess.run, ["sh", "-c", "".join(commands)], capture_output=True, text=True, check=True
    )
    product, order, page = done.stdout.strip().split("\n")
    assert '"price":{"currency":"JPY"' in product
    assert '"state":"RESERVED"' in order
    address, _, trace_id = page.rpartition("/")
    assert address == f"{mesh.traces}/trace"
    async with aiohttp.ClientSession() as session, session.get(page) as response:
        assert response.status == 200
    root = await trace(mesh, trace_id, spans=5)
    assert root.name == "POST /v1/orders"
