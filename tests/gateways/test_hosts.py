"""Which hosts Traefik serves: those of `GATEWAY_HOSTS`."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import grpc
import pytest
import pytest_asyncio

from tests.gateways.shop import GET_PRODUCT, READ
from tests.gateways.test_answers import ORDER, PRODUCT, stub

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.gateways.front import Front
    from tests.gateways.shop import Shop

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEYED = {"Idempotency-Key": secrets.token_hex(16)}
HOSTS = ("shop.example.com", "localhost")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def traefik(running_shop: Shop) -> AsyncIterator[Front]:
    async with running_shop.front("traefik", *running_shop.places, hosts=HOSTS) as front:
        yield front


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("shop.example.com", 200),
        ("SHOP.example.com:8443", 200),
        ("localhost", 200),
        ("example.com", 404),
        ("www.shop.example.com", 404),
        ("127.0.0.1", 404),
    ],
)
async def test_rest_is_served_for_its_hosts_only(traefik: Front, host: str, status: int) -> None:
    headers = {"Host": host}
    async with traefik.client() as client:
        product = await client.get(READ, headers=headers)
        connect = await client.post(GET_PRODUCT, json={"sku": "TEA-0001"}, headers=headers)
        keyed = await client.post("/v1/orders", json=ORDER, headers=headers | KEYED)
    assert [product.status_code, connect.status_code] == [status, status]
    assert keyed.status_code == {200: 201, 404: 404}[status]


@pytest.mark.parametrize(
    ("host", "code"), [("localhost", grpc.StatusCode.OK), ("127.0.0.1", grpc.StatusCode.UNIMPLEMENTED)]
)
async def test_grpc_is_served_for_its_hosts_only(traefik: Front, host: str, code: grpc.StatusCode) -> None:
    async with traefik.channel(("grpc.ssl_target_name_override", host)) as channel:
        assert await stub(channel).GetProduct(PRODUCT, timeout=15).code() is code
