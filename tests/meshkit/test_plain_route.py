"""A plain route responds as FastAPI does, by a shorter way that other routes do not take."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any, Self

import pytest
import pytest_asyncio
from fastapi import APIRouter, Body, Depends, FastAPI, Header, HTTPException, Path, Query, Request, Response
from fastapi.exceptions import ResponseValidationError
from fastapi.routing import APIRoute
from pydantic import AfterValidator, BaseModel, model_validator
from starlette.middleware import Middleware
from starlette.routing import Mount

from meshkit.errors import NotFound
from meshkit.fastapi.budget import route_with_budget
from meshkit.fastapi.plain_route import CACHED_LENGTH, PlainRoutes, responder
from meshkit.fastapi.prefix import PathPrefix
from tests.meshkit.http_server import PROBLEMS, app_session

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import aiohttp

Endpoint = Callable[..., Awaitable[Any]]


class Tea(BaseModel):
    """What the routes return."""

    name: str
    cups: int = 1
    notes: list[str] = []


class Checked(Tea):
    """Notes each validation."""

    @model_validator(mode="after")
    def check(self) -> Self:
        self.notes = [*self.notes, "checked"]
        return self


class Prepared(Tea):
    """Would note the validation of an instance, too."""

    @model_validator(mode="before")
    @classmethod
    def prepare(cls, value: Any) -> Any:
        return {**value, "notes": ["prepared"]}


class Revalidated(Tea, revalidate_instances="always"):
    """Is validated again."""


class Iced(Tea):
    """Has more than the response may have."""

    ice: int = 3


Cups = Annotated[int, Query(ge=0, le=9)]


async def read(
    name: Annotated[str, Path(min_length=2)],
    note: Annotated[list[Annotated[str, Query(max_length=3)]], Query(max_length=2)] = [],  # noqa: B006
    cups: Cups = 1,
    hot: bool = False,  # noqa: FBT001, FBT002 - a query parameter
    strength: float = 0.5,
) -> Tea:
    """Returns its parameters, after it has changed its list."""
    if name == "none":
        raise HTTPException(404)
    note.append(f"{hot} {strength}")
    return Tea(name=name, cups=cups, notes=note)


async def required(cups: Cups) -> Tea:
    return Tea(name="required", cups=cups)


async def prepared(cups: Cups = 1) -> Tea:
    return Response(f"{cups}", 202, {"X-Prepared": "yes"})  # type: ignore[return-value] # as FastAPI allows


failures: list[Exception] = []


async def failing() -> Tea:
    raise failures.pop()


def returning(model: type[Tea]) -> Endpoint:
    async def endpoint(kind: str) -> Any:
        match kind:
            case "unchecked":
                return model.model_construct(name="unchecked", cups=99, notes=None)  # type: ignore[arg-type]
            case "dict":
                return {"name": "dict", "cups": "2"}
            case "subclass":
                return Iced(name="subclass")
        return model(name=kind)

    return endpoint


MODELS: list[tuple[type[Tea], Any]] = [
    *((model, model) for model in (Tea, Checked, Prepared, Revalidated)),
    (Tea, Annotated[Tea, AfterValidator(lambda _tea: Tea(name="other"))]),
]
"""What endpoints return, and what their routes declare."""


def routes(prefix: str, route_class: type[APIRoute]) -> APIRouter:
    router = APIRouter(prefix=prefix, route_class=route_class)
    router.get("/required")(required)
    router.get("/failing")(failing)
    router.get("/prepared")(prepared)
    router.post("/prepared")(prepared)
    router.get("/created/{name}", status_code=201, response_model_exclude_defaults=True)(read)
    for index, (model, declared) in enumerate(MODELS):
        router.get(f"/returned/{index}/{{kind}}", response_model=declared)(returning(model))
    router.get("/{name}")(read)
    return router


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """An app with the same routes below /plain and, as FastAPI has them, below /usual and /included."""
    plain, usual = routes("/plain", route_with_budget(9.0)), routes("/usual", APIRoute)
    included = routes("/included", APIRoute)
    app = FastAPI(routes=[*plain.routes, *usual.routes], middleware=[Middleware(PlainRoutes)])
    app.include_router(included)
    PROBLEMS.add_handlers(app, included.routes)
    async with app_session(app) as session:
        yield session


QUERIES = [
    "",
    "cups=3",
    "cups=3&cups=4",
    "cups=10",
    "cups=",
    "cups",
    "cups=x&hot=perhaps&strength=x",
    "hot=yes&strength=1e3&unknown=1",
    "note=a&note=b",
    "note=a&note=b&note=c",
    "note=long&note=b",
    "note=",
    "note=%F0%9F%8D%B5+%26&cups=%202",
    "unknown=1&" * CACHED_LENGTH + "note=a&cups=2",
]


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("path", ["required", "prepared", "created/tea", "tea", "t", "none", "a%2Fb", "%E2%80%A8"])
async def test_a_plain_route_responds_as_fastapi(http: aiohttp.ClientSession, path: str) -> None:
    for query in QUERIES:
        assert await respond(http, f"/plain/{path}?{query}") == await respond(http, f"/usual/{path}?{query}"), query


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
@pytest.mark.parametrize("kind", ["model", "unchecked", "dict", "subclass"])
@pytest.mark.parametrize("index", range(len(MODELS)))
async def test_what_an_endpoint_returns_is_validated_as_by_fastapi(
    http: aiohttp.ClientSession, index: int, kind: str
) -> None:
    path = f"returned/{index}/{kind}"
    assert await respond(http, f"/plain/{path}") == await respond(http, f"/usual/{path}")


async def respond(http: aiohttp.ClientSession, path: str) -> tuple[int, str | None, str | None, bytes]:
    async with http.get(path) as answer:
        body = (await answer.read()).replace(b"/plain/", b"/usual/")
        return answer.status, answer.headers.get("Content-Type"), answer.headers.get("X-Prepared"), body


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("prefix", ["plain", "usual", "included"])
async def test_a_405_lists_the_methods_of_the_path(http: aiohttp.ClientSession, prefix: str) -> None:
    async with http.put(f"/{prefix}/prepared") as answer:
        assert answer.status == 405
        assert {method.strip() for method in answer.headers["Allow"].split(",")} >= {"GET", "HEAD", "POST"}


@pytest.mark.asyncio(loop_scope="module")
async def test_an_endpoint_that_fails_is_called_once(http: aiohttp.ClientSession) -> None:
    failures.clear()
    for error, status in ((HTTPException(409), 409), (NotFound("no tea"), 404), (LookupError("no tea"), 500)):
        failures.append(error)
        async with http.get("/plain/failing") as answer:
            assert (answer.status, failures) == (status, [])


async def with_a_body(cups: Annotated[int, Body()]) -> Tea:
    return Tea(name="body", cups=cups)


async def with_a_header(cups: Annotated[int, Header()] = 1) -> Tea:
    return Tea(name="header", cups=cups)


async def with_the_request(request: Request) -> Tea:
    return Tea(name=request.method)


async def with_a_dependency(cups: Annotated[int, Depends(lambda: 1)]) -> Tea:
    return Tea(name="dependency", cups=cups)


async def with_another_name(cups: Annotated[int, Query(alias="mugs")] = 1) -> Tea:
    return Tea(name="alias", cups=cups)


async def with_a_model(tea: Annotated[Tea, Query()]) -> Tea:
    return tea


async def without_a_model(cups: int = 1) -> Any:
    return cups


async def with_a_response(cups: int = 1) -> Response:
    return Response(str(cups))


def not_async(cups: int = 1) -> Tea:
    return Tea(name="thread", cups=cups)


@pytest.mark.parametrize("endpoint", [read, required, prepared, failing])
def test_a_plain_route_takes_the_shorter_way(endpoint: Endpoint) -> None:
    assert responder(APIRoute("/teas/{name}" if endpoint is read else "/", endpoint, response_model=Tea)) is not None


@pytest.mark.parametrize(
    "endpoint",
    [
        with_a_body,
        with_a_header,
        with_the_request,
        with_a_dependency,
        with_another_name,
        with_a_model,
        with_a_response,
        not_async,
    ],
)
def test_another_route_takes_fastapis_way(endpoint: Endpoint) -> None:
    (route,) = routes_of(APIRouter(), endpoint)
    assert responder(route) is None


def test_a_route_whose_router_has_dependencies_takes_fastapis_way() -> None:
    (route,) = routes_of(APIRouter(dependencies=[Depends(lambda: None)]), required)
    assert responder(route) is None


async def test_the_dependencies_of_an_included_router_apply_to_its_plain_routes() -> None:
    called: list[str] = []
    router = APIRouter(route_class=route_with_budget(9.0))
    router.get("/")(required)
    app = FastAPI(middleware=[Middleware(PlainRoutes)])
    app.include_router(router, dependencies=[Depends(lambda: called.append("yes"))])
    sent: list[Any] = []
    scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"cups=1", "headers": [], "root_path": ""}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, asyncio.Event().wait, send)  # type: ignore[arg-type] # nothing receives
    assert (sent[0]["status"], called) == (200, ["yes"])


async def test_the_first_route_that_matches_is_run_also_below_a_mount_and_a_prefix() -> None:
    router = APIRouter(route_class=route_with_budget(9.0))
    router.get("/prepared")(prepared)
    router.get("/{name:path}")(read)
    app = FastAPI(routes=[Mount("/teas", FastAPI(routes=router.routes, middleware=[Middleware(PlainRoutes)]))])
    for layers in (app, PathPrefix(app, prefix="/shop")):
        async with app_session(layers) as http, http.get("/teas/prepared") as answer:
            assert answer.headers["X-Prepared"] == "yes"


async def test_the_error_of_an_invalid_result_names_the_endpoint() -> None:
    async def broken() -> Tea:
        return "no tea"  # type: ignore[return-value]

    (route,) = routes_of(APIRouter(), broken)
    respond = responder(route)
    assert respond
    with pytest.raises(ResponseValidationError) as raised:
        await respond({"path_params": {}, "query_string": b""})
    line = broken.__code__.co_firstlineno
    assert str(raised.value).endswith(f'File "{__file__}", line {line}, in broken\n    GET /')


def routes_of(router: APIRouter, endpoint: Endpoint) -> list[APIRoute]:
    router.get("/")(endpoint)
    return [route for route in router.routes if isinstance(route, APIRoute)]
