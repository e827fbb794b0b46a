"""The documents name existing code: a file defines each identifier that follows a link to it.

[storefront.py](../services/api_edge/src/api_edge/storefront.py) (`Storefront.product`, `DEGRADING`)
[test_one_product_in_yen](tests/e2e/test_a_day_at_the_shop.py)
"""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

import pytest

from tests.repository import ROOT, texts

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DOCUMENTS = {path: text for path, text in texts().items() if path.suffix == ".md"}
NAMING = re.compile(r"\]\(([^)\s#]+\.(?:py|proto))\)\s*\(((?:`[^`]+`[\s,]*(?:and\s+)?)+)\)")
TEST = re.compile(r"\[(test_\w+)\]\(([^)\s#]+\.py)\)")


def named(text: str) -> Iterator[tuple[str, str]]:
    """Each source file that a Markdown text links, with each identifier or test named with the link."""
    yield from ((file, name) for name, file in TEST.findall(text))
    for file, names in NAMING.findall(text):
        yield from ((file, name) for name in re.findall(r"`([A-Za-z_][\w.]*)(?:\(\))?`", names))


def undefined(path: Path, text: str) -> list[str]:
    """The identifiers in a document that the linked file does not define."""
    return [f"{file}: {name}" for file, name in named(text) if not defines(path.parent / file, name)]


def defines(file: Path, name: str) -> bool:
    if file.suffix == ".py":
        return name in definitions(ast.parse(file.read_text()))
    declarations = re.sub("//.*", "", file.read_text())
    declared = r"\b(?:service|rpc|message|enum)\s+{0}\b|\b{0}\s*=\s*\d"
    return all(re.search(declared.format(part), declarations) for part in name.split("."))


def definitions(tree: ast.AST, prefix: str = "") -> set[str]:
    """The classes, functions and variables of a tree: `Storefront`, `Storefront.product`, `DEGRADING`."""
    found: set[str] = set()
    for node in ast.iter_child_nodes(tree):
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                found |= {prefix + name} | definitions(node, f"{prefix}{name}.")
            case ast.Assign(targets=targets):
                found |= {prefix + each.id for each in targets if isinstance(each, ast.Name)}
            case ast.AnnAssign(target=ast.Name(id=name)):
                found.add(prefix + name)
    return found


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_code_that_a_document_names_is_defined_in_the_linked_file(path: Path) -> None:
    assert not undefined(path, DOCUMENTS[path])


def test_the_request_path_names_code() -> None:
    """Otherwise the test above would check nothing."""
    assert len(list(named(DOCUMENTS[ROOT / "docs" / "one-request.md"]))) >= 10


@pytest.mark.parametrize(
    ("names", "missing"),
    [
        ("`ServiceError`, `ServiceError.reason` and `mapping_of()`", []),
        ("`TABLE`", []),
        ("`ServiceError`,\n`InvalidArgument`", []),
        ("`NoSuchError`", ["NoSuchError"]),
        ("`mapping_of`, `ServiceError.code`", ["ServiceError.code"]),
    ],
)
def test_a_name_that_python_code_does_not_define_is_reported(names: str, missing: list[str]) -> None:
    file = "libs/meshkit/src/meshkit/errors.py"
    found = undefined(ROOT / "README.md", f"See [errors.py]({file}) ({names}), and then.")
    assert found == [f"{file}: {name}" for name in missing]


@pytest.mark.parametrize(("name", "missing"), [("test_the_request_path_names_code", False), ("test_nothing", True)])
def test_a_missing_test_is_reported(name: str, *, missing: bool) -> None:
    file = "tests/contract/test_named_code.py"
    found = undefined(ROOT / "README.md", f"| shown by | [{name}]({file}) |")
    assert found == ([f"{file}: {name}"] if missing else [])


@pytest.mark.parametrize(
    ("names", "missing"),
    [
        ("`InventoryService.GetStock`, `ReserveStockRequest.attempt_id`", []),
        ("`InventoryService.Reservation`", ["InventoryService.Reservation"]),
        ("`GetPrice`", ["GetPrice"]),
    ],
)
def test_a_name_that_a_proto_does_not_define_is_reported(names: str, missing: list[str]) -> None:
    file = "protos/aiomesh/inventory/v1/inventory_service.proto"
    found = undefined(ROOT / "README.md", f"See [the service]({file}) ({names}).")
    assert found == [f"{file}: {name}" for name in missing]
