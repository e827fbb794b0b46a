"""A service is declared in its own pyproject.toml, and no other hand-written file lists it."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from localmesh.services import read_services
from tests.repository import ROOT, texts
from tools import service_lists
from tools.generate import generated_texts

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SERVICES = read_services(ROOT)
EDGES = [service for service in SERVICES if service.protocol == "http"]
BACKENDS = [service for service in SERVICES if service not in EDGES]
OURS = [service for service in SERVICES if service.name in {"api_edge", "inventory", "pricing"}]
"""Those that the repository comes with. Another may be named after a word of any text, such as `search`."""


OWN = "|".join(
    place
    for service in SERVICES
    for place in (
        f"services/{service.name}/",
        f"protos/aiomesh/{service.area}/",
        f"deploy/k8s/base/{service.workload}/",
        f"tests/{service.name.removeprefix('api_')}/",
    )
)
"""The paths that belong to one service. Only the edge knows other services."""

GENERATED = "libs/aiomesh_protos/src/|tests/contract/openapi.json|.*requirements.lock"
PROSE = r".*\.md|bench/|.*/examples/|\.ci/"  # .ci/run names the service that it generates
SCENARIOS = r"tests/(e2e|cluster)/test_\w+\.py"
"""Tests that stop or kill services by name."""

COMMENT = re.compile(r"(^|\s)(# |-- |// |/\*).*", re.MULTILINE)
ENDS = {tokenize.NEWLINE, tokenize.NL, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING}


def hand_written(*exempt: str) -> Iterator[tuple[str, str]]:
    """The path and text of every hand-written file that is not exempt, without its generated parts."""
    leave_out = re.compile("|".join((OWN, GENERATED, PROSE, *exempt)))
    for path, text in texts().items():
        name = path.relative_to(ROOT).as_posix()
        if not leave_out.match(name):
            yield name, service_lists.hand_written(text)


def code(name: str, text: str) -> str:
    """A text without comments and docstrings, which may name a service as an example."""
    if not name.endswith(".py"):
        return COMMENT.sub("", text)
    tokens = [token for token in tokenize.generate_tokens(io.StringIO(text).readline) if token.type != tokenize.COMMENT]
    before = [tokenize.ENCODING, *(token.type for token in tokens)]
    return "\n".join(
        token.string
        for last, (token, following) in zip(before, pairwise(tokens), strict=False)
        if not (token.type == tokenize.STRING and last in ENDS and following.type in ENDS)
    )


def names(text: str) -> set[str]:
    """The backends of ours that a text names: in snake_case, with hyphens, in CamelCase, or in capitals."""
    return {service.name for service in OURS if service in BACKENDS and re.search(spellings(service.name), text)}


def spellings(name: str) -> str:
    small, camel = name.replace("_", "[_-]"), name.title().replace("_", "")
    return f"(?<![a-z]){small}(?![a-z])|{camel}(?![a-z])|(?<![A-Z]){name.upper()}(?![A-Z])"


def lists(text: str) -> list[str]:
    """The collections in a module with two or more items, or keys, that are services or named after services."""
    nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.List | ast.Tuple | ast.Set | ast.Dict)]
    return [ast.unparse(node) for node in nodes if sum(is_service(each) for each in items(node)) > 1]


def items(node: ast.List | ast.Tuple | ast.Set | ast.Dict) -> list[ast.expr | None]:
    return node.keys if isinstance(node, ast.Dict) else [*node.elts]


def is_service(item: ast.expr | None) -> bool:
    match item:
        case ast.Constant(str(text)):
            return any(text in {service.name, service.workload, service.grpc_name} for service in OURS)
        case ast.Name(identifier):
            return bool(names(identifier))
    return False


def test_what_is_generated_is_current() -> None:
    stale = [path.relative_to(ROOT) for path, text in generated_texts().items() if path.read_text() != text]
    assert stale == [], "run `make generate` and commit what it writes"


def test_only_the_edge_and_a_service_itself_name_a_service() -> None:
    """So a new service needs no edit of existing files, except the calls of the edge."""
    found = {name for name, text in hand_written("tests/") if names(code(name, text))}
    assert found == set()


def test_no_test_harness_or_contract_lists_the_services() -> None:
    """A test may use one service as its example; a list would omit a new service."""
    exempt = (SCENARIOS, "tests/contract/test_declaration.py")
    modules = [(name, text) for name, text in hand_written(*exempt) if re.fullmatch(r"tests/.+\.py", name)]
    found = {name: lists(text) for name, text in modules if lists(text)}
    assert found.keys() == set()


@pytest.fixture
def shop(copy: Path) -> Path:
    """The copy, with one more service."""
    project = copy / "services" / "gift_cards" / "pyproject.toml"
    project.parent.mkdir()
    project.write_text('[project]\nversion = "2.0"\n[tool.aiomesh]\nport = 50099\ndatabase = true\n')
    return copy


def test_every_generated_list_includes_a_new_service(shop: Path) -> None:
    texts = {path.relative_to(shop).as_posix(): text for path, text in service_lists.generated(shop).items()}
    assert all(re.search("gift[-_]cards", text) for text in texts.values())
    assert "newTag: 2.0" in texts["deploy/k8s/overlays/production/kustomization.yaml"]
    before = (ROOT / "skaffold.yaml").read_text().splitlines()
    assert [line for line in texts["skaffold.yaml"].splitlines() if line not in before] == [
        "  - {image: aiomesh/gift-cards, docker: {dockerfile: services/Dockerfile, buildArgs: {SERVICE: gift_cards}}}"
    ]


def test_a_list_without_its_mark_is_reported() -> None:
    with pytest.raises(ValueError, match="0 lists `images: # generated by `make generate``, not one"):
        service_lists.with_list("images:\n- one\n", "images", ["two"])


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("one.py", '"""Like inventory."""\n\nONE = "pricing"  # not inventory\n', {"pricing"}),
        ("one.py", "def one() -> None:\n    '''Like inventory.'''\n    run(inventory.app)\n", {"inventory"}),
        ("one.py", "stub = InventoryServiceStub\nPRICING_PORT = 1\n", {"inventory", "pricing"}),
        ("one.py", "inventories = repricing\n", set()),
        ("one.yaml", "# such as pricing\nname: inventory-database # pricing\n", {"inventory"}),
        ("one.yaml", f"names: {service_lists.MARK}\n- inventory\nother: pricing\n", {"pricing"}),
        ("Makefile", "#:   PRICING_PORT  pricing\n", {"pricing"}),
    ],
)
def test_names_are_found_in_code_and_not_in_comments(name: str, text: str, found: set[str]) -> None:
    assert names(code(name, service_lists.hand_written(text))) == found


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ('ALL = ("inventory", "pricing")', 1),
        ('PORTS = {"api-edge": 1, "inventory": 2}', 1),
        ('@parametrize("service", ["api_edge", "pricing"])\ndef test(service): ...', 1),
        ("ALL = [InventorySettings, PricingSettings]", 1),
        ('start("inventory", "one")\nEXPECTED = ["pricing", "pricing-1"]', 0),
    ],
)
def test_a_list_is_a_collection_of_names(text: str, count: int) -> None:
    assert len(lists(text)) == count
