"""The storefront's proto offers what the REST API offers, by the annotations of google.api.http."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from google.api import annotations_pb2  # type: ignore[import-untyped] # it has no types
from google.protobuf.descriptor_pb2 import MethodOptions

from aiomesh.storefront.v1 import storefront_service_pb2
from tests.repository import ROOT

if TYPE_CHECKING:
    from google.protobuf.descriptor import MethodDescriptor

pytestmark = pytest.mark.unit

SERVICE = storefront_service_pb2.DESCRIPTOR.services_by_name["StorefrontService"]
METHODS: list[MethodDescriptor] = list(SERVICE.methods)
REST: dict[str, dict[str, dict[str, Any]]] = {
    path: operations
    for path, operations in json.loads((ROOT / "tests/contract/openapi.json").read_text())["paths"].items()
    if path.startswith("/v1/")
}

each_method = pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)


def rule(method: MethodDescriptor) -> tuple[str, str]:
    """The HTTP method, in lower case, and the path of a method."""
    http = method.GetOptions().Extensions[annotations_pb2.http]
    verb = str(http.WhichOneof("pattern"))
    return verb, str(getattr(http, verb))


def snake_case(name: str) -> str:
    return re.sub("(?<!^)(?=[A-Z])", "_", name).lower()


def test_every_operation_of_rest_is_one_method() -> None:
    operations = {(verb, path) for path, found in REST.items() for verb in found}
    assert sorted(map(rule, METHODS)) == sorted(operations)


@each_method
def test_a_method_has_the_name_and_the_parameters_of_its_operation(method: MethodDescriptor) -> None:
    verb, path = rule(method)
    operation = REST[path][verb]
    fields = {field.json_name if field.is_repeated else field.name for field in method.input_type.fields}
    parameters = {one["name"] for one in operation.get("parameters", ()) if one["in"] != "header"}
    body = {"currency", "lines"} if "requestBody" in operation else set()
    assert snake_case(method.name) == operation["operationId"]
    assert fields == parameters | body


@each_method
def test_a_method_may_be_repeated_like_its_operation(method: MethodDescriptor) -> None:
    verb, path = rule(method)
    has_key = "Idempotency-Key" in {one["name"] for one in REST[path][verb].get("parameters", ())}
    level = MethodOptions.IDEMPOTENCY_UNKNOWN if has_key else MethodOptions.IDEMPOTENT
    assert method.GetOptions().idempotency_level == (MethodOptions.NO_SIDE_EFFECTS if verb == "get" else level)
