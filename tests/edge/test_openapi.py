"""/openapi.json agrees with the behaviour of the edge."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from api_edge.rest.openapi import EXAMPLES
from meshkit.fastapi.problem_details import Problem
from tests.edge.mesh import PROBLEM, Answer, Mesh, mesh
from tests.inventory.opened import HOLD

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

pytestmark = pytest.mark.asyncio(loop_scope="module")

NOBODY = "00000000-0000-0000-0000-000000000000"
OPERATIONS = {
    ("get", "/v1/products"),
    ("get", "/v1/products/{sku}"),
    ("post", "/v1/orders"),
    ("get", "/v1/orders/{order_id}"),
    ("post", "/v1/orders/{order_id}/commit"),
    ("delete", "/v1/orders/{order_id}"),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mesh]:
    async with mesh(tmp_path_factory.mktemp("shop")) as shop:
        yield shop


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def document(shop: Mesh) -> Any:
    return (await shop.get("/openapi.json")).body


def operations(document: Any) -> Iterator[tuple[str, str, Any]]:
    return ((method, path, operation) for path, item in document["paths"].items() for method, operation in item.items())


async def test_exactly_the_routes_of_the_api_are_documented(document: Any) -> None:
    assert {(method, path) for method, path, _ in operations(document)} == OPERATIONS
    names = {"list_products", "get_product", "place_order", "get_order", "commit_order", "release_order"}
    assert {operation["operationId"] for _, _, operation in operations(document)} == names


async def test_every_error_is_documented_only_as_a_problem(document: Any) -> None:
    for method, path, operation in operations(document):
        errors = {status: response for status, response in operation["responses"].items() if status >= "400"}
        assert errors.keys() >= {"400", "413", "422", "429", "500", "503", "504"}, (method, path)
        for response in errors.values():
            assert response["content"].keys() == {PROBLEM}
            assert response["content"][PROBLEM]["schema"] == {"$ref": "#/components/schemas/Problem"}
    assert "HTTPValidationError" not in document["components"]["schemas"]


async def test_headers_are_documented_with_their_limits(document: Any) -> None:
    parameters = [item for _, _, operation in operations(document) for item in operation["parameters"]]
    headers = {item["name"]: item["schema"] for item in parameters if item["in"] == "header"}
    budget, key = headers["X-Request-Timeout-Ms"], headers["Idempotency-Key"]
    assert (budget["type"], budget["minimum"], budget["maximum"]) == ("integer", 1, 30_000)
    assert (key["type"], key["pattern"]) == ("string", "^[ -~]{1,255}$")


async def test_the_idempotency_key_is_documented_as_a_secret_and_every_example_has_128_bits(document: Any) -> None:
    place = document["paths"]["/v1/orders"]["post"]
    (sent,) = [item for item in place["parameters"] if item["name"] == "Idempotency-Key"]
    assert "secret" in sent["description"]
    assert "at least 128 random bits" in sent["description"]
    returned = place["responses"]["201"]["headers"]["Idempotency-Key"]
    assert "secret" in returned["description"]
    assert re.fullmatch("[0-9a-f]{32}", returned["example"])


async def test_every_reference_resolves(document: Any) -> None:
    def references(part: Any) -> Iterator[str]:
        if isinstance(part, dict):
            yield from ([part["$ref"]] if isinstance(part.get("$ref"), str) else [])
            part = list(part.values())
        if isinstance(part, list):
            for item in part:
                yield from references(item)

    for reference in references(document):
        found = document
        for name in reference.removeprefix("#/").split("/"):
            found = found[name]
        assert found["type"]


async def test_every_example_of_a_problem_is_valid(document: Any) -> None:
    seen = set()
    for _, path, operation in operations(document):
        for status, response in operation["responses"].items():
            for reason, example in response["content"].get(PROBLEM, {}).get("examples", {}).items():
                problem = Problem.model_validate(example["value"])
                assert (problem.reason, problem.status) == (reason, int(status))
                assert problem.instance.startswith(path.partition("{")[0])
                seen.add(reason)
    assert seen == EXAMPLES.keys()


async def test_every_field_of_a_response_has_an_example(document: Any) -> None:
    schemas = document["components"]["schemas"]
    for name in ("Product", "Stock", "Price", "Order", "OrderLine", "NewOrderLine", "Problem", "Violation"):
        for field, schema in schemas[name]["properties"].items():
            nested = any(key in str(schema) for key in ("$ref", "date-time"))
            assert schema.get("examples") or nested, (name, field)


def order(sku: str = "TEA-0001", quantity: object = 1, currency: str = "EUR") -> dict[str, Any]:
    return {"json": {"currency": currency, "lines": [{"sku": sku, "quantity": quantity}]}}


@pytest.mark.parametrize(
    ("method", "template", "path", "request_"),
    [
        ("get", "/v1/products", "/v1/products?page_token=x", {}),
        ("get", "/v1/products", "/v1/products?currency=XXX", {}),
        ("get", "/v1/products", "/v1/products?sku=NO-1", {}),
        ("get", "/v1/products", "/v1/products?quantity=0", {}),
        ("get", "/v1/products/{sku}", "/v1/products/NO-1", {}),
        ("get", "/v1/products/{sku}", "/v1/products/GFT-0010?strict=1", {}),
        ("get", "/v1/products/{sku}", "/v1/products/TEA-0001?currency=x", {}),
        ("get", "/v1/products/{sku}", "/v1/products/TEA-0001", {"headers": {"X-Request-Timeout-Ms": "0"}}),
        ("get", "/v1/products/{sku}", "/v1/products/TEA-0001", {"headers": {"X-Request-Timeout-Ms": "1"}}),
        ("post", "/v1/orders", "/v1/orders", order(sku="NO-1")),
        ("post", "/v1/orders", "/v1/orders", order(quantity=0)),
        ("post", "/v1/orders", "/v1/orders", order(quantity=1_000_000)),
        ("post", "/v1/orders", "/v1/orders", order(currency="XXX")),
        ("post", "/v1/orders", "/v1/orders", order() | {"headers": {"Idempotency-Key": ""}}),
        ("post", "/v1/orders", "/v1/orders", {"data": b"x"}),
        ("post", "/v1/orders", "/v1/orders", {"data": b"x" * 1_048_577}),
        ("get", "/v1/orders/{order_id}", f"/v1/orders/{NOBODY}", {}),
        ("post", "/v1/orders/{order_id}/commit", f"/v1/orders/{NOBODY}/commit", {}),
        ("delete", "/v1/orders/{order_id}", "/v1/orders/x", {}),
    ],
)
async def test_every_returned_problem_is_documented(
    shop: Mesh, document: Any, method: str, template: str, path: str, request_: dict[str, Any]
) -> None:
    assert_documented(document, method, template, await shop.ask(method.upper(), path, **request_))


async def test_every_problem_of_a_final_order_is_documented(shop: Mesh, document: Any) -> None:
    path, commit = "/v1/orders/{order_id}", "/v1/orders/{order_id}/commit"
    committed, released, expired = [
        (await shop.ask("POST", "/v1/orders", **order())).headers["Location"] for _ in range(3)
    ]
    await shop.ask("POST", f"{committed}/commit")
    await shop.ask("DELETE", released)
    assert_documented(document, "delete", path, await shop.ask("DELETE", committed))
    assert_documented(document, "post", commit, await shop.ask("POST", f"{released}/commit"))
    await shop.order(("TEA-0001", 1), key="k")
    assert_documented(document, "post", "/v1/orders", await shop.order(("TEA-0001", 2), key="k"))
    shop.clock.advance(HOLD)
    assert_documented(document, "delete", path, await shop.ask("DELETE", expired))
    assert_documented(document, "post", commit, await shop.ask("POST", f"{expired}/commit"))


def assert_documented(document: Any, method: str, template: str, answer: Answer) -> None:
    responses = document["paths"][template][method]["responses"]
    assert answer.status >= 400
    assert answer.body["reason"] in responses[str(answer.status)]["content"][PROBLEM]["examples"], answer.text


async def test_the_root_redirects_to_the_documentation(shop: Mesh) -> None:
    answer = await shop.get("/")
    assert (answer.status, answer.headers["Location"]) == (307, "/docs")
    assert (await shop.get("/docs")).status == 200
