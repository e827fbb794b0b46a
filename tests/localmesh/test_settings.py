"""The settings of `make up`, read from the environment."""

import re
from pathlib import Path

import pytest

from localmesh.services import Service
from localmesh.settings import InvalidSettings, Settings, load

pytestmark = pytest.mark.unit

SERVICES = (
    Service("stock", 50051, "grpc", database=True, after=()),
    Service("tax", 50052, "grpc", database=True, after=()),
    Service("api_edge", 8080, "http", database=False, after=("stock", "tax"), grpc_port=50050),
)
VARIABLES = (
    "EDGE_PORT",
    "EDGE_GRPC_PORT",
    "STOCK_PORT",
    "TAX_PORT",
    "TRACES_PORT",
    "OTLP_PORT",
    "STATE_DIR",
    "JAEGER_BIN",
    "RELOAD",
    "WITHOUT",
    "GATEWAY",
    "GATEWAY_PORT",
    "GATEWAY_HOSTS",
    "GATEWAY_TLS_CERT",
    "GATEWAY_TLS_KEY",
)


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)


def test_the_documented_ports_are_the_defaults() -> None:
    assert load(SERVICES).ports == {
        "EDGE_PORT": 8080,
        "EDGE_GRPC_PORT": 50050,
        "STOCK_PORT": 50051,
        "TAX_PORT": 50052,
        "TRACES_PORT": 16686,
        "OTLP_PORT": 4317,
    }


def test_the_gateway_has_a_port_if_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY", "nginx")
    assert load(SERVICES).ports["GATEWAY_PORT"] == 8443
    monkeypatch.setenv("EDGE_PORT", "8443")
    with pytest.raises(InvalidSettings, match="GATEWAY_PORT and EDGE_PORT are both 8443"):
        load(SERVICES)
    monkeypatch.setenv("GATEWAY", "")
    assert load(SERVICES).ports["EDGE_PORT"] == 8443


def test_only_traefik_routes_by_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_HOSTS", "shop.example.com, www.example.com")
    monkeypatch.setenv("GATEWAY", "traefik")
    assert load(SERVICES).gateway_hosts == ("shop.example.com", "www.example.com")
    monkeypatch.setenv("GATEWAY", "nginx")
    with pytest.raises(
        InvalidSettings, match="GATEWAY_HOSTS is for GATEWAY=traefik; with nginx, set EDGE_ALLOWED_HOSTS"
    ):
        load(SERVICES)


def test_each_port_has_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    moved = {variable: 30001 + index for index, variable in enumerate(load(SERVICES).ports)}
    for variable, port in moved.items():
        monkeypatch.setenv(variable, str(port))
    assert load(SERVICES).ports == moved


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_PORT", "")
    assert load(SERVICES).ports["EDGE_PORT"] == 8080


@pytest.mark.parametrize(
    ("value", "names"), [("", ()), ("tax", ("tax",)), ("tax,stock", ("tax", "stock")), ("tax, stock", ("tax", "stock"))]
)
def test_services_are_left_out_by_name(monkeypatch: pytest.MonkeyPatch, value: str, names: tuple[str, ...]) -> None:
    monkeypatch.setenv("WITHOUT", value)
    assert load(SERVICES).without == names


def test_the_state_directory_is_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert load(SERVICES).state_dir == tmp_path.resolve() / ".localmesh"
    monkeypatch.setenv("STATE_DIR", "other")
    assert load(SERVICES).state_dir == tmp_path.resolve() / "other"


@pytest.mark.parametrize(
    ("variable", "value", "line"),
    [
        ("EDGE_PORT", "http", r"EDGE_PORT=http: must be a whole number from 1 to 65535"),
        ("OTLP_PORT", "70000", r"OTLP_PORT=70000: must be a whole number from 1 to 65535"),
        ("TRACES_PORT", "0", r"TRACES_PORT=0: must be a whole number from 1 to 65535"),
        ("EDGE_GRPC_PORT", "50051", r"STOCK_PORT and EDGE_GRPC_PORT are both 50051: give each its own port"),
        ("TAX_PORT", "50051", r"STOCK_PORT and TAX_PORT are both 50051: give each its own port"),
        ("JAEGER_BIN", "/nowhere/jaeger", r"JAEGER_BIN=/nowhere/jaeger: no such program"),
        ("RELOAD", "perhaps", r"RELOAD=perhaps: must be 1 or 0"),
        ("WITHOUT", "taxes", r"WITHOUT=taxes: no such service: taxes; choose from stock, tax, api_edge"),
        ("GATEWAY", "ngnix", r"GATEWAY=ngnix: no such gateway; did you mean nginx\?"),
        ("GATEWAY", "NGINX", r"GATEWAY=NGINX: no such gateway; did you mean nginx\?"),
        ("GATEWAY", "caddy", r"GATEWAY=caddy: no such gateway; choose from nginx.*"),
        (
            "GATEWAY_HOSTS",
            "https://shop.test",
            r"GATEWAY_HOSTS=https://shop.test: not a host name: https://shop.test; .*",
        ),
        ("GATEWAY_TLS_CERT", "/nowhere/cert.pem", r"GATEWAY_TLS_CERT=/nowhere/cert.pem: no such file"),
        ("GATEWAY_TLS_KEY", __file__, r"GATEWAY_TLS_CERT and GATEWAY_TLS_KEY belong together: set both or neither"),
        ("WITHOUT", "tax,a,b", r"WITHOUT=tax,a,b: no such service: a, b; choose from stock, tax, api_edge"),
    ],
)
def test_an_invalid_value_is_one_line_that_names_its_variable(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, line: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(InvalidSettings) as raised:
        load(SERVICES)
    assert re.fullmatch(line, str(raised.value))


def test_a_jaeger_on_the_path_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert Settings().jaeger_bin is None
    jaeger = tmp_path / "jaeger"
    jaeger.touch(mode=0o755)
    assert Settings().jaeger_bin == str(jaeger)
