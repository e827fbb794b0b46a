"""Callers of the edge in each of its protocols, which read a product or place an order."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp
import grpc
from google.rpc import code_pb2

from aiomesh.storefront.v1 import storefront_service_pb2 as pb
from aiomesh.storefront.v1 import storefront_service_pb2_grpc as pb_grpc
from meshkit.connect.protocols import CODES
from tests.edge.protocols.web import frame, parsed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager
    from typing import TypeAlias

SECONDS = 15
"""The time budget of each call."""

READ, ORDER = "GetProduct", "PlaceOrder"
REQUESTS = {
    READ: pb.GetProductRequest(sku="TEA-0001"),
    ORDER: pb.PlaceOrderRequest(lines=[pb.NewOrderLine(sku="ACC-0005", quantity=1)]),
}
ROUTES = {
    READ: ("GET", "/v1/products/TEA-0001", None),
    ORDER: ("POST", "/v1/orders", {"lines": [{"sku": "ACC-0005", "quantity": 1}]}),
}
SERVICE = pb.DESCRIPTOR.services_by_name["StorefrontService"].full_name


class NotBegun(Exception):
    """The edge has refused a call before it began."""


@dataclass(frozen=True)
class Edge:
    """Where the edge listens."""

    url: str
    grpc_address: str


Call: TypeAlias = "Callable[[str, str], Awaitable[int | str]]"
"""Calls a method in a trace (`traceparent`); returns the status: a number of HTTP, or gRPC's name. Raises NotBegun."""


@asynccontextmanager
async def rest(edge: Edge) -> AsyncIterator[Call]:
    """Calls over REST."""

    async def call(method: str, traceparent: str) -> int:
        verb, path, body = ROUTES[method]
        headers = {"X-Request-Timeout-Ms": f"{SECONDS * 1000}", "traceparent": traceparent}
        async with http.request(verb, edge.url + path, json=body, headers=headers) as response:
            await response.read()
            return response.status

    async with connection() as http:
        yield call


@asynccontextmanager
async def connect(edge: Edge) -> AsyncIterator[Call]:
    """Calls over Connect, binary."""

    async def call(method: str, traceparent: str) -> str:
        headers = {"Content-Type": "application/proto", "Connect-Timeout-Ms": f"{SECONDS * 1000}"}
        body = REQUESTS[method].SerializeToString()
        found, response = await post(http, edge, method, body, {**headers, "traceparent": traceparent})
        code = "OK" if found.status == 200 else CODES[json.loads(response)["code"]]
        return begun(code, is_traced="Trailer-X-Trace-Id" in found.headers)

    async with connection() as http:
        yield call


@asynccontextmanager
async def grpc_web(edge: Edge) -> AsyncIterator[Call]:
    """Calls over gRPC-Web, binary."""

    async def call(method: str, traceparent: str) -> str:
        headers = {"Content-Type": "application/grpc-web+proto", "Grpc-Timeout": f"{SECONDS}S"}
        body = frame(REQUESTS[method].SerializeToString())
        found, response = await post(http, edge, method, body, {**headers, "traceparent": traceparent})
        trailers = parsed(response)[1] or found.headers
        return begun(code_pb2.Code.Name(int(trailers["grpc-status"])), is_traced="x-trace-id" in trailers)

    async with connection() as http:
        yield call


@asynccontextmanager
async def grpc_port(edge: Edge) -> AsyncIterator[Call]:
    """Calls over gRPC."""

    async def call(method: str, traceparent: str) -> str:
        call = getattr(stub, method)(REQUESTS[method], timeout=SECONDS, metadata=[("traceparent", traceparent)])
        code = (await call.code()).name
        return begun(code, is_traced="x-trace-id" in (await call.trailing_metadata() or ()))

    async with grpc.aio.insecure_channel(edge.grpc_address) as channel:
        stub: Any = pb_grpc.StorefrontServiceStub(channel)
        yield call


CALLERS: dict[str, Callable[[Edge], AbstractAsyncContextManager[Call]]] = {
    "REST": rest,
    "gRPC": grpc_port,
    "Connect": connect,
    "gRPC-Web": grpc_web,
}


def connection() -> aiohttp.ClientSession:
    """A client with one connection at a time."""
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1))


async def post(
    http: aiohttp.ClientSession, edge: Edge, method: str, body: bytes, headers: dict[str, str]
) -> tuple[aiohttp.ClientResponse, bytes]:
    """The response of an RPC on the HTTP port, and its body."""
    async with http.post(f"{edge.url}/{SERVICE}/{method}", data=body, headers=headers) as response:
        return response, await response.read()


def begun(code: str, *, is_traced: bool) -> str:
    """The code of a call that the servicer began, which names its trace.

    gRPC's own code of a call that came after the time in which the server refuses calls is CANCELLED.
    """
    if is_traced:
        return code
    assert code in {"UNAVAILABLE", "CANCELLED"}, code
    raise NotBegun
