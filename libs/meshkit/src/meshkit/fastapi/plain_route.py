"""A shorter way through FastAPI for plain routes: the same responses, from the same declaration.

For each request FastAPI asks again what its declaration says of each parameter: its aliases, whether it is a list, its
default. And around each route it has a stack for files and handlers of exceptions. A plain route has only simple
parameters in path and query, so these are looked up once, and it needs nothing around it. Their values are still
validated by FastAPI's own fields. A request that they refuse takes FastAPI's way, which reports it, as does one whose
endpoint fails: there its route raises the error.
"""

from __future__ import annotations

from functools import lru_cache, partial
from inspect import iscoroutinefunction, signature, unwrap
from typing import TYPE_CHECKING, Any, NamedTuple, get_origin
from urllib.parse import parse_qsl

from fastapi import Response
from fastapi.datastructures import DefaultPlaceholder
from fastapi.routing import serialize_response
from starlette._utils import get_route_path  # what `matches` itself asks for
from starlette.routing import Match

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from fastapi.exceptions import EndpointContext
    from fastapi.routing import APIRoute
    from starlette.types import ASGIApp, Receive, Scope, Send

    Respond = Callable[[Scope], Coroutine[Any, Any, ASGIApp | None]]
    """Makes the response to a request, by its ASGI scope; None if the request has to take FastAPI's way."""

SIMPLE = (str, int, float, bool)
"""The types of simple parameters; a query may have lists, too."""

CACHED_QUERIES, CACHED_LENGTH = 256, 256
"""The number of queries that are kept parsed, and the length of the longest of them."""

ERROR = "meshkit.error"
"""The key in the ASGI scope of the error of a plain route, which FastAPI's way raises again."""


class PlainRoutes:
    """ASGI middleware, the innermost of a FastAPI app: runs plain routes, without what FastAPI has around all routes.

    These are routes of `meshkit.fastapi.budget` that belong to the app itself. An included router may add dependencies
    to its routes. Spans of operations and `fastapi.telemetry.get_telemetry_data` know only what takes FastAPI's way.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Runs the app (ASGI)."""
        way: ASGIApp | None = None
        if scope["type"] == "http" and (respond := _matching(scope)):
            try:
                way = await respond(scope)
            except Exception as error:  # noqa: BLE001 - FastAPI's way raises it
                scope[ERROR] = error
        await (way or self._app)(scope, receive, send)


def raise_error(scope: Scope) -> None:
    """Raises the error with which the endpoint has already failed, if it has."""
    error = scope.pop(ERROR, None)
    if error is not None:
        try:
            raise error
        finally:
            del error  # else it refers to this frame and the frame to it


def _matching(scope: Scope) -> Respond | None:
    """The `respond` of the route that the router would choose, if it is a plain one."""
    path = get_route_path(scope)
    for route in scope["app"].router.routes:
        regex = getattr(route, "path_regex", None)
        if regex and not regex.match(path):
            continue  # as `matches` would say, at a fifth of its cost
        match, child_scope = route.matches(scope)
        if match is Match.FULL:
            if respond := getattr(route, "respond", None):
                scope.update(child_scope)
            return respond
    return None


class Parameter(NamedTuple):
    """A parameter: what the requests need to know of FastAPI's field, which validates it."""

    name: str
    in_path: bool  # else in the query
    is_list: bool
    is_required: bool
    default: Callable[[], Any]
    field: Any


def responder(route: APIRoute) -> Respond | None:
    """Responds for a plain route; None for another route."""
    parameters = _parameters(route)
    if route.dependencies or not _is_plain(route, parameters):
        return None
    call = _caller(route)

    async def respond(scope: Scope) -> ASGIApp | None:
        values = _values(scope, parameters)
        return None if values is None else await call(values)

    return respond


def _parameters(route: APIRoute) -> list[Parameter]:
    fields = [(field, True) for field in route.dependant.path_params]
    fields += [(field, False) for field in route.dependant.query_params]
    return [_parameter(field, in_path=in_path) for field, in_path in fields]


def _parameter(field: Any, *, in_path: bool) -> Parameter:
    info = field.field_info
    is_list = get_origin(info.annotation) is list
    return Parameter(field.name, in_path, is_list, info.is_required(), _default(field), field)


def _default(field: Any) -> Callable[[], Any]:
    """Makes the default of a field: FastAPI's copy of it, or the default itself if nobody can change it."""
    default = field.field_info.default
    return (lambda: default) if type(default) in SIMPLE else field.get_default


def _is_plain(route: APIRoute, parameters: Sequence[Parameter]) -> bool:
    names = {parameter.name for parameter in parameters}
    return (
        iscoroutinefunction(route.endpoint)
        and names == set(signature(route.endpoint).parameters)
        and all(map(_is_simple, parameters))
        and route.response_field is not None
        and isinstance(route.response_class, DefaultPlaceholder)
        and route.max_body_size is None
    )


def _is_simple(parameter: Parameter) -> bool:
    info = parameter.field.field_info
    has_own_name = parameter.field.alias == parameter.name and info.validation_alias is None
    return has_own_name and not info.validate_default and (parameter.is_list or info.annotation in SIMPLE)


def _caller(route: APIRoute) -> Callable[[dict[str, Any]], Coroutine[Any, Any, ASGIApp]]:
    """Calls the endpoint and makes a response of what it returns."""
    options: dict[str, Any] = {
        "include": route.response_model_include,
        "exclude": route.response_model_exclude,
        "by_alias": route.response_model_by_alias,
        "exclude_unset": route.response_model_exclude_unset,
        "exclude_defaults": route.response_model_exclude_defaults,
        "exclude_none": route.response_model_exclude_none,
    }
    place = _place(route)
    serialize = partial(serialize_response, field=route.response_field, endpoint_ctx=place, dump_json=True, **options)
    model = route.response_model if _is_never_validated(route.response_model) else None
    write: Any = model and partial(model.__pydantic_serializer__.to_json, **options)

    async def call(values: dict[str, Any]) -> ASGIApp:
        result = await route.endpoint(**values)
        if isinstance(result, Response):
            return result
        body = write(result) if type(result) is model else await serialize(response_content=result)
        return partial(_respond, body, route.status_code or 200)

    return call


def _place(route: APIRoute) -> EndpointContext:
    """Where the endpoint is, for the error of a result that its route does not declare."""
    endpoint = unwrap(route.endpoint)
    code = getattr(endpoint, "__code__", None)
    path = f"{', '.join(sorted(route.methods or ()))} {route.path}"
    if code is None:
        return {"path": path}
    return {"path": path, "function": code.co_name, "file": code.co_filename, "line": code.co_firstlineno}


async def _respond(body: bytes, status: int, _scope: Scope, _receive: Receive, send: Send) -> None:
    """Sends JSON as a response of FastAPI would."""
    headers = [(b"content-length", b"%d" % len(body)), (b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _is_never_validated(model: Any) -> bool:
    """Whether the validation of an instance of this model returns it as it is: nothing surrounds the model's schema."""
    schema = getattr(model, "__pydantic_core_schema__", {})
    return schema.get("type") == "model" and schema["config"].get("revalidate_instances", "never") == "never"


def _values(scope: Scope, parameters: Sequence[Parameter]) -> dict[str, Any] | None:
    """The arguments of the endpoint; None if a parameter is missing or invalid."""
    path = scope["path_params"]
    pairs, query = _parsed(scope["query_string"])
    values: dict[str, Any] = {}
    for name, in_path, is_list, is_required, default, field in parameters:
        text = (path if in_path else query).get(name)
        if text is not None:
            value = [each for key, each in pairs if key == name] if is_list else text
            values[name], errors = field.validate(value)
            if errors:
                return None
        elif is_required:
            return None
        else:
            values[name] = default()
    return values


def _parsed(query: bytes) -> tuple[list[tuple[str, str]], dict[str, str]]:
    """The names and values of a query, and the last value of each name. Nobody may change them."""
    return _cached(query) if len(query) <= CACHED_LENGTH else _parse(query)


def _parse(query: bytes) -> tuple[list[tuple[str, str]], dict[str, str]]:
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    return pairs, dict(pairs)


_cached = lru_cache(CACHED_QUERIES)(_parse)
