"""Errors of FastAPI and of its routes as problems, over real HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from fastapi import FastAPI, HTTPException

from tests.meshkit.http_server import PROBLEMS, app_session

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import aiohttp

RAISED: list[tuple[int, Any, str, str]] = [
    (400, "the coupon has expired", "BAD_REQUEST", "Bad Request"),
    (401, "who are you", "UNAUTHORIZED", "Unauthorized"),
    (404, "no user 7", "NOT_FOUND", "Not Found"),
    (405, "closed on Sundays", "METHOD_NOT_ALLOWED", "Method Not Allowed"),
    (409, "Conflict", "CONFLICT", "Conflict"),
    (414, "too long", "URI_TOO_LONG", "URI Too Long"),
    (422, "no such size", "INVALID_REQUEST", "Unprocessable Content"),
    (460, "gone home", "STATUS_460", "Status 460"),
    (499, "gone", "CLIENT_CLOSED_REQUEST", "Client Closed Request"),
    (503, "later", "SERVICE_UNAVAILABLE", "Service Unavailable"),
]
"""What a route raises, with the reason and the title of its problem."""


def api() -> FastAPI:
    app = FastAPI()
    PROBLEMS.add_handlers(app)

    @app.get("/raise/{number}")
    async def fail(number: int) -> None:
        status, detail, *_ = RAISED[number]
        raise HTTPException(status, detail, {"X-Hint": "here"})

    @app.get("/object")
    async def fail_with_an_object() -> None:
        raise HTTPException(409, {"code": 7})

    @app.post("/echo")
    async def echo(body: dict[str, int]) -> dict[str, int]:
        return body

    return app


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with app_session(api()) as session:
        yield session


async def problem(response: aiohttp.ClientResponse) -> dict[str, Any]:
    assert response.content_type == "application/problem+json"
    body: dict[str, Any] = await response.json(content_type=None)
    assert body["status"] == response.status
    return body


@pytest.mark.parametrize("number", range(len(RAISED)), ids=[str(status) for status, *_ in RAISED])
async def test_the_error_of_a_route_keeps_its_detail_and_its_headers(http: aiohttp.ClientSession, number: int) -> None:
    status, *expected = RAISED[number]
    async with http.get(f"/raise/{number}") as response:
        body = await problem(response)
        assert response.status == status
        assert [body["detail"], body["reason"], body["title"]] == expected
        assert body["errors"] == []
        assert response.headers["X-Hint"] == "here"


async def test_a_detail_that_is_no_text_is_json(http: aiohttp.ClientSession) -> None:
    async with http.get("/object") as response:
        assert (await problem(response))["detail"] == '{"code":7}'


async def test_errors_of_the_framework_say_what_to_change(http: aiohttp.ClientSession) -> None:
    async with http.get("/nowhere") as response:
        body = await problem(response)
        assert (body["reason"], body["detail"]) == ("UNKNOWN_ROUTE", "there is no path /nowhere")
    async with http.delete("/object") as response:
        body = await problem(response)
        assert (body["reason"], body["detail"]) == ("METHOD_NOT_ALLOWED", "/object does not support DELETE")
        assert response.headers["Allow"] == "GET, HEAD"
    async with http.post("/echo", data=b"\xff", headers={"Content-Type": "application/json"}) as response:
        body = await problem(response)
        assert (response.status, body["reason"]) == (422, "INVALID_REQUEST")
        assert [error["field"] for error in body["errors"]] == ["body"]
