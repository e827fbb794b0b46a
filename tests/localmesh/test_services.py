"""The declarations of services in their projects."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from localmesh.services import InvalidDeclaration, Service, read_services

if TYPE_CHECKING:
    from pathlib import Path


pytestmark = pytest.mark.unit


def declare(root: Path, name: str, table: str) -> None:
    folder = root / "services" / name
    folder.mkdir(parents=True)
    (folder / "pyproject.toml").write_text(f"[project]\nname = 'x'\n{table}\n")


def test_services_come_before_their_callers(tmp_path: Path) -> None:
    declare(tmp_path, "api_edge", '[tool.aiomesh]\nport = 1\nprotocol = "http"\nafter = ["stock_list", "tax"]')
    declare(tmp_path, "stock_list", '[tool.aiomesh]\nport = 2\ndatabase = true\nafter = ["tax"]')
    declare(tmp_path, "tax", "[tool.aiomesh]\nport = 3")
    assert read_services(tmp_path) == (
        Service("tax", 3, "grpc", database=False, after=()),
        Service("stock_list", 2, "grpc", database=True, after=("tax",)),
        Service("api_edge", 1, "http", database=False, after=("stock_list", "tax")),
    )


def test_the_names_of_a_service_follow_from_its_package() -> None:
    edge, stock = (Service(name, 1, "grpc", database=False, after=()) for name in ("api_edge", "stock_list"))
    assert (edge.prefix, edge.port_variable, edge.workload) == ("EDGE_", "EDGE_PORT", "api-edge")
    assert (stock.prefix, stock.grpc_name) == ("STOCK_LIST_", "aiomesh.stock_list.v1.StockListService")


def test_a_service_with_http_may_also_serve_an_api_of_another_name(tmp_path: Path) -> None:
    declare(tmp_path, "api_edge", '[tool.aiomesh]\nport = 1\nprotocol = "http"\napi = "gift_shop"\ngrpc_port = 2')
    declare(tmp_path, "tax", "[tool.aiomesh]\nport = 3")
    edge, tax = read_services(tmp_path)
    assert (edge.area, edge.grpc_name) == ("gift_shop", "aiomesh.gift_shop.v1.GiftShopService")
    assert (edge.ports, edge.has_api) == ({"EDGE_PORT": 1, "EDGE_GRPC_PORT": 2}, True)
    assert (tax.area, tax.ports, tax.has_api) == ("tax", {"TAX_PORT": 3}, True)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("", r"tax/pyproject.toml: \[tool.aiomesh\] needs a port"),
        ("[tool.aiomesh]\nport = 70000", "needs a port, 1 to 65535"),
        ("[tool.aiomesh]\nport = true", "needs a port, 1 to 65535"),
        ("[tool.aiomesh]\nport = 1\nprotocol = 'soap'", 'must be "grpc" or "http"'),
        ("[tool.aiomesh]\nport = 1\ndatabase = 'yes'", "`database` must be true or false"),
        ("[tool.aiomesh]\nport = 1\nafter = 'tax'", "`after` must be a list of services"),
        ("[tool.aiomesh]\nport = 1\nafter = ['nobody']", "services/tax: `after` names an unknown service: nobody"),
        ("[tool.aiomesh]\nport = 1\nafter = ['tax']", "services call each other in a cycle: tax → tax"),
        ("[tool.aiomesh]\nport = 1\nprot = 'http'", "does not support the key prot"),
        ("[tool.aiomesh]\nport = 1\napi = 2", "`api` must be the name of a folder"),
        (
            "[tool.aiomesh]\nport = 1\ngrpc_port = 2",
            '`grpc_port` must be a port, 1 to 65535, beside the protocol "http"',
        ),
        ("[tool.aiomesh]\nport = 1\nprotocol = 'http'\ngrpc_port = 0", "`grpc_port` must be a port"),
    ],
)
def test_an_invalid_declaration_is_an_error_that_names_the_mistake(tmp_path: Path, table: str, message: str) -> None:
    declare(tmp_path, "tax", table)
    with pytest.raises(InvalidDeclaration, match=message):
        read_services(tmp_path)


def test_two_services_cannot_have_the_same_port(tmp_path: Path) -> None:
    declare(tmp_path, "stock", "[tool.aiomesh]\nport = 7")
    declare(tmp_path, "tax", "[tool.aiomesh]\nport = 7")
    with pytest.raises(InvalidDeclaration, match="services/stock and services/tax both have port 7"):
        read_services(tmp_path)
    declare(tmp_path, "api_edge", "[tool.aiomesh]\nport = 8\nprotocol = 'http'\ngrpc_port = 7")
    with pytest.raises(InvalidDeclaration, match="services/api_edge and services/stock both have port 7"):
        read_services(tmp_path)
