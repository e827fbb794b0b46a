"""The class of a route gives its requests a time budget, and documents it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import pytest
from fastapi import APIRouter, Body, FastAPI
from fastapi.responses import StreamingResponse
from fastapi.routing import APIRoute
from starlette.middleware import Middleware

from meshkit.deadline import remaining
from meshkit.fastapi.budget import route_with_budget
from meshkit.fastapi.middleware import BodyLimits
from meshkit.fastapi.plain_route import PlainRoutes
from tests.meshkit.http_server import PROBLEMS, app_session

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import aiohttp

HOUR, DAY, MOMENT = 3600.0, 86400.0, 0.05


def routes(prefix: str, route_class: type[APIRoute]) -> APIRouter:
    """Routes that return their remaining budget, read a body, and stream beyond their budget."""
    router = APIRouter(prefix=prefix, route_class=route_class)

    @router.get("/left")
    async def left() -> float | None:
        return remaining()

    @router.post("/body")
    async def read(body: Annotated[Any, Body()]) -> Any:
        return body

    @router.get("/stream")
    async def stream() -> StreamingResponse:
        return StreamingResponse(before_and_after(2 * (remaining() or 0)))

    @router.get("/streamed")
    async def streamed() -> float | None:
        return StreamingResponse(own_budget())  # type: ignore[return-value]

    return router


async def own_budget() -> AsyncIterator[str]:
    yield str(remaining())


async def before_and_after(seconds: float) -> AsyncIterator[bytes]:
    yield b"before, "
    try:
        async with asyncio.timeout(seconds):
            await asyncio.Event().wait()
    except TimeoutError:
        yield b"after"


def api() -> FastAPI:
    app = FastAPI()
    app.add_middleware(BodyLimits, problems=PROBLEMS)
    for prefix, seconds in (("/hour", HOUR), ("/day", DAY), ("/moment", MOMENT)):
        app.include_router(routes(prefix, route_with_budget(seconds)))
    app.include_router(routes("/none", APIRoute))
    PROBLEMS.add_handlers(app)
    return app


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with app_session(api()) as session:
        yield session


async def left(http: aiohttp.ClientSession, path: str, timeout_ms: str | None = None) -> Any:
    async with http.get(path, headers={"X-Request-Timeout-Ms": timeout_ms} if timeout_ms else {}) as answer:
        assert answer.status == 200
        return await answer.json()


async def test_a_request_has_the_budget_of_its_route(http: aiohttp.ClientSession) -> None:
    assert HOUR / 2 < await left(http, "/hour/left") <= HOUR
    assert DAY / 2 < await left(http, "/day/left") <= DAY


@pytest.mark.parametrize("layers", [[], [Middleware(PlainRoutes)]], ids=["usual", "plain"])
async def test_a_streamed_response_is_within_the_budget(layers: list[Middleware]) -> None:
    app = FastAPI(routes=routes("", route_with_budget(HOUR)).routes, middleware=layers)
    async with app_session(app) as http, http.get("/streamed") as answer:
        assert HOUR / 2 < float(await answer.text()) <= HOUR


async def test_a_route_without_a_declared_budget_has_none(http: aiohttp.ClientSession) -> None:
    assert await left(http, "/none/left") is None
    assert await left(http, "/none/left", "20000") is None


async def test_a_request_may_ask_for_another_budget(http: aiohttp.ClientSession) -> None:
    assert 0 < await left(http, "/day/left", "30000") <= 30


@pytest.mark.parametrize(("method", "path"), [("GET", "/day/left"), ("POST", "/day/body"), ("PUT", "/day/left")])
async def test_an_invalid_budget_is_rejected_before_any_other_check(
    http: aiohttp.ClientSession, method: str, path: str
) -> None:
    async with http.request(method, path, data=b"{", headers={"X-Request-Timeout-Ms": "0"}) as answer:
        assert (answer.status, (await answer.json(content_type=None))["reason"]) == (400, "INVALID_TIMEOUT")


async def endless_body() -> AsyncIterator[bytes]:
    yield b"{"
    await asyncio.Event().wait()


async def test_a_body_must_arrive_within_the_budget_of_its_route(http: aiohttp.ClientSession) -> None:
    async with http.post("/moment/body", data=endless_body(), headers={"Content-Type": "application/json"}) as answer:
        assert (answer.status, (await answer.json(content_type=None))["reason"]) == (408, "REQUEST_TIMEOUT")


@pytest.mark.parametrize("route", ["/moment", "/none"])
async def test_the_budget_does_not_end_a_started_response(http: aiohttp.ClientSession, route: str) -> None:
    async with http.get(f"{route}/stream") as answer:
        assert await answer.read() == b"before, after"


def test_only_routes_with_a_budget_document_it() -> None:
    headers = {
        path: [parameter for parameter in operation.get("parameters", []) if parameter["in"] == "header"]
        for path, item in api().openapi()["paths"].items()
        for operation in item.values()
    }
    assert [header["name"] for header in headers["/hour/left"]] == ["X-Request-Timeout-Ms"]
    assert "3600000" in headers["/hour/left"][0]["description"]
    assert "50" in headers["/moment/stream"][0]["description"]
    assert headers["/none/left"] == []
