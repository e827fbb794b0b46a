"""Every reason of error_reason.proto is one domain error, is raised somewhere, and has the details in its comment."""

from __future__ import annotations

import ast
import importlib
import json
import re
from typing import TYPE_CHECKING, NamedTuple

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.rpc import code_pb2

from localmesh.services import Service, read_services
from meshkit.errors import ServiceError, mapping_of
from tests.repository import modules
from tools.protos import describe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.descriptor_pb2 import FileDescriptorProto

each_api = pytest.mark.parametrize("api", [one for one in read_services() if one.has_api], ids=lambda one: one.area)
PREFIX = "ERROR_REASON_"
ENUM, VALUE, SERVICE, METHOD = 5, 2, 6, 2  # field numbers in descriptor.proto: the paths of source info


class Reason(NamedTuple):
    """The content of the comment of an enum value."""

    name: str
    code: str
    details: set[str]
    example: dict[str, object]


@pytest.fixture(scope="module")
def descriptors(tmp_path_factory: pytest.TempPathFactory) -> FileDescriptorSet:
    image = tmp_path_factory.mktemp("protos") / "protos.binpb"
    describe(image)
    return FileDescriptorSet.FromString(image.read_bytes())


def file_of(descriptors: FileDescriptorSet, name: str) -> FileDescriptorProto:
    return next(file for file in descriptors.file if file.name == name)


def comments(file: FileDescriptorProto) -> dict[tuple[int, ...], str]:
    """The leading comment of each element, on one line, by the element's path."""
    return {
        tuple(location.path): " ".join(location.leading_comments.split()) for location in file.source_code_info.location
    }


def documented_reasons(descriptors: FileDescriptorSet, api: Service) -> list[Reason]:
    file = file_of(descriptors, f"aiomesh/{api.area}/v1/error_reason.proto")
    said = comments(file)
    (enum,) = file.enum_type
    return [read(value.name, said[ENUM, 0, VALUE, index]) for index, value in enumerate(enum.value) if index]


def read(name: str, comment: str) -> Reason:
    prose, _, example = comment.partition("Example of an ErrorInfo:")
    (code,) = set(re.findall(r"[A-Z_]{2,}", prose)) & set(code_pb2.Code.keys())
    details = set(re.findall(r"google\.rpc\.(\w+)", prose))
    return Reason(name.removeprefix(PREFIX), code, details, json.loads(example))


def examples(api: Service) -> list[ServiceError]:
    """The errors in the comments of error_reason.proto, from the service's tests."""
    folder = api.name.removeprefix("api_")
    found: list[ServiceError] = importlib.import_module(f"tests.{folder}.error_examples").EXAMPLES
    return found


def domain_errors(api: Service) -> list[type[ServiceError]]:
    """Those of its own domain, and not those that stand for an error of another service."""
    module = importlib.import_module(f"{api.name}.domain")
    return [
        cls
        for cls in vars(module).values()
        if isinstance(cls, type) and issubclass(cls, ServiceError) and cls.domain == module.DOMAIN
    ]


def named_values(source: str) -> set[str]:
    """The names that a source text raises, calls, passes as arguments, or stores in a table."""
    return {
        name.id
        for node in ast.walk(ast.parse(source))
        for value in handed_on(node)
        for name in ast.walk(value)
        if isinstance(name, ast.Name)
    }


def handed_on(node: ast.AST) -> Iterator[ast.expr]:
    match node:
        case ast.Raise(exc=ast.expr() as error):
            yield error
        case ast.Call(func=ast.Name(id="isinstance" | "issubclass")):
            return
        case ast.Call():
            yield from (node.func, *node.args, *(keyword.value for keyword in node.keywords))
        case ast.Dict():
            yield from node.values


@each_api
def test_reasons_and_domain_errors_are_the_same(descriptors: FileDescriptorSet, api: Service) -> None:
    reasons = [reason.name for reason in documented_reasons(descriptors, api)]
    assert sorted(reasons) == sorted(error.reason for error in domain_errors(api))


@each_api
def test_there_is_one_example_of_each_domain_error(api: Service) -> None:
    assert [type(error) for error in examples(api)] == domain_errors(api)


@each_api
def test_every_error_has_the_error_info_in_its_comment(descriptors: FileDescriptorSet, api: Service) -> None:
    shown = {error.reason: error for error in examples(api)}
    for reason in documented_reasons(descriptors, api):
        error = shown[reason.name]
        assert reason.example == {"reason": error.reason, "domain": error.domain, "metadata": error.fields}
        assert error.domain == f"{api.name}.aiomesh"


@each_api
def test_every_error_has_the_code_and_the_details_in_its_comment(descriptors: FileDescriptorSet, api: Service) -> None:
    shown = {error.reason: error for error in examples(api)}
    for reason in documented_reasons(descriptors, api):
        error = shown[reason.name]
        assert reason.code == mapping_of(error).code, reason.name
        assert reason.details == details_of(error), reason.name


def details_of(error: ServiceError) -> set[str]:
    found = {"BadRequest": error.violations, "RetryInfo": error.retry_after}
    return {name for name, value in found.items() if value}


@each_api
def test_the_comments_of_the_calls_name_every_reason_with_its_code(
    descriptors: FileDescriptorSet, api: Service
) -> None:
    """Such as `NOT_FOUND (UNKNOWN_SKU)`: each reason exists, has the code, and none is missing."""
    file = file_of(descriptors, f"aiomesh/{api.area}/v1/{api.area}_service.proto")
    said = comments(file)
    (service,) = file.service
    calls = [said[SERVICE, 0], *(said[SERVICE, 0, METHOD, index] for index in range(len(service.method)))]
    named = {pair for comment in calls for pair in codes_and_reasons(comment)}
    assert named == {(reason.code, reason.name) for reason in documented_reasons(descriptors, api)}


def codes_and_reasons(comment: str) -> Iterator[tuple[str, str]]:
    for code, reasons in re.findall(r"([A-Z_]{2,}) \(([A-Z_]{2,}(?:, [A-Z_]{2,})*)\)", comment):
        yield from ((code, reason) for reason in reasons.split(", "))


@each_api
def test_every_domain_error_is_raised_somewhere(api: Service) -> None:
    used = {name for source in modules(api.name).values() for name in named_values(source)}
    assert {error.__name__ for error in domain_errors(api)} <= used


@pytest.mark.parametrize(
    ("source", "used"),
    [
        ("raise UnknownSku(sku)", True),
        ("raise UnknownSku from error", True),
        ("Database(url, unavailable=UnknownSku)", True),
        ("ENDED = {State.COMMITTED: UnknownSku}", True),
        ("from shop.domain import UnknownSku", False),
        ("class UnknownSku(NotFound): pass", False),
        ("def find(sku: str) -> UnknownSku: pass", False),
        ("try:\n    find()\nexcept UnknownSku:\n    pass", False),
        ("isinstance(error, UnknownSku)", False),
    ],
)
def test_an_error_counts_as_raised_only_if_it_is_raised_called_or_passed(source: str, *, used: bool) -> None:
    assert ("UnknownSku" in named_values(source)) is used


def test_a_comment_is_parsed_with_code_details_and_example() -> None:
    comment = 'Gone. UNAVAILABLE, with `google.rpc.RetryInfo`. Example of an ErrorInfo: { "reason": "GONE" }'
    assert read("ERROR_REASON_GONE", comment) == Reason("GONE", "UNAVAILABLE", {"RetryInfo"}, {"reason": "GONE"})
    assert list(codes_and_reasons("It is gone. NOT_FOUND (GONE, LOST), ABORTED (RACED) if late.")) == [
        ("NOT_FOUND", "GONE"),
        ("NOT_FOUND", "LOST"),
        ("ABORTED", "RACED"),
    ]
