"""A servicer has the same context over gRPC, and over HTTP by `meshkit.connect`: metadata, and ways to end a call."""

from __future__ import annotations

import base64
import json
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import aiohttp
import grpc
import pytest
import pytest_asyncio
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from aiomesh.storefront.v1 import storefront_service_pb2 as pb
from aiomesh.storefront.v1 import storefront_service_pb2_grpc as pb_grpc
from aiomesh.storefront.v1.storefront_service_connect import StorefrontServiceASGIApplication
from meshkit.connect.protocols import CODES
from meshkit.connect.service import serve_rpcs
from meshkit.server.build import build_server
from meshkit.server.health import Health
from meshkit.service import always_ready
from meshkit.testing import SpanCapture, start_server
from tests.meshkit.http_server import http_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

pytestmark = pytest.mark.asyncio(loop_scope="module")

SERVICE = pb.DESCRIPTOR.services_by_name["StorefrontService"]
SENT = b"\xff\x00"
GENERATED: Any = pb_grpc.StorefrontServiceServicer  # abstract for the type checker, but not in fact


class Servicer(GENERATED):  # type: ignore[misc] # see above
    """Uses its context as the `sku` of a request says. All other methods are as they are generated."""

    async def GetProduct(self, request: pb.GetProductRequest, context: Any) -> pb.GetProductResponse:  # noqa: N802
        await context.send_initial_metadata((("x-first", "1"), ("x-first-bin", SENT)))
        (sent,) = [value for name, value in context.invocation_metadata() if name == "x-sent-bin"]
        context.set_trailing_metadata((("x-last-bin", sent),))
        match request.sku:
            case "abort":
                await context.abort_with_status(rpc_status.to_status(Status(code=9, message="later")))
            case "set":
                context.set_code(grpc.StatusCode.NOT_FOUND)
                context.set_details("gone")
            case "number":
                context.set_code(6)
        return pb.GetProductResponse()


class Found(NamedTuple):
    """What a client gets."""

    code: str
    message: str
    initial: Mapping[str, str | bytes]
    trailing: Mapping[str, str | bytes]


async def over_grpc(address: str, method: str, request: bytes) -> Found:
    async with grpc.aio.insecure_channel(address) as channel:
        made: Any = channel.unary_unary(f"/{SERVICE.full_name}/{method}")
        call = made(request, metadata=(("x-sent-bin", SENT),))
        code, message = (await call.code()).name, await call.details()
        return Found(code, message, dict(await call.initial_metadata()), dict(await call.trailing_metadata()))


async def over_connect(address: str, method: str, request: bytes) -> Found:
    headers = {"Content-Type": "application/proto", "X-Sent-Bin": base64.b64encode(SENT).decode().rstrip("=")}
    url = f"http://{address}/{SERVICE.full_name}/{method}"
    async with aiohttp.ClientSession() as http, http.post(url, data=request, headers=headers) as response:
        error = {} if response.status == 200 else json.loads(await response.read())
        found: dict[str, str | bytes] = {
            name.lower(): base64.b64decode(value + "===") if name.lower().endswith("-bin") else value
            for name, value in response.headers.items()
        }
    trailing = {name.removeprefix("trailer-"): value for name, value in found.items() if name.startswith("trailer-")}
    return Found(CODES[error["code"]] if error else "OK", error.get("message", ""), found, trailing)


@asynccontextmanager
async def grpc_server() -> AsyncIterator[Callable[[str, bytes], Awaitable[Found]]]:
    server = build_server(
        services={SERVICE.full_name: partial(pb_grpc.add_StorefrontServiceServicer_to_server, Servicer())},
        health=Health(SERVICE.full_name, always_ready),
        telemetry=SpanCapture("server").telemetry,
    )
    async with start_server(server) as address:
        yield partial(over_grpc, address)


@asynccontextmanager
async def connect_server() -> AsyncIterator[Callable[[str, bytes], Awaitable[Found]]]:
    telemetry = SpanCapture("server").telemetry
    app = serve_rpcs(SERVICE, Servicer(), StorefrontServiceASGIApplication, telemetry=telemetry, max_pending=10)
    async with http_server(app) as running:
        yield partial(over_connect, "{}:{}".format(*running.address))


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=[grpc_server, connect_server])
async def call(request: pytest.FixtureRequest) -> AsyncIterator[Callable[[str, bytes], Awaitable[Found]]]:
    async with request.param() as call:
        yield call


@pytest.mark.parametrize(
    ("sku", "code", "message"),
    [
        ("return", "OK", ""),
        ("set", "NOT_FOUND", "gone"),
        ("number", "ALREADY_EXISTS", ""),
        ("abort", "FAILED_PRECONDITION", "later"),
    ],
)
async def test_a_servicer_sets_metadata_and_the_status(call: Any, sku: str, code: str, message: str) -> None:
    found: Found = await call("GetProduct", pb.GetProductRequest(sku=sku).SerializeToString())
    assert (found.code, found.message) == (code, message)
    assert (found.initial["x-first"], found.initial["x-first-bin"]) == ("1", SENT)
    assert found.trailing.get("x-last-bin") == (None if sku == "abort" else SENT)


async def test_a_method_that_is_only_generated_is_unimplemented(call: Any, caplog: pytest.LogCaptureFixture) -> None:
    found: Found = await call("GetOrder", b"")
    assert (found.code, found.message) == ("UNIMPLEMENTED", "the service has no such method")
    assert not [record for record in caplog.records if record.exc_info]
