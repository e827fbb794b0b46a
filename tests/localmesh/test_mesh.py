"""The processes that `make up` starts, their environments, and the order in which they stop."""

import json
import sys
from pathlib import Path

import pytest
from sqlalchemy import make_url

from localmesh.gateways.known import GATEWAYS
from localmesh.mesh import describe
from localmesh.program import Program
from localmesh.services import Service
from localmesh.settings import InvalidSettings, Settings, settings_for

pytestmark = pytest.mark.unit

SERVICES = (
    Service("stock", 50051, "grpc", database=True, after=()),
    Service("tax", 50052, "grpc", database=True, after=()),
    Service("reviews", 50053, "grpc", database=False, after=("tax",)),
    Service(
        "api_edge", 8080, "http", database=False, after=("stock", "tax", "reviews"), api="gift_shop", grpc_port=50050
    ),
)
SETTINGS = settings_for(SERVICES).model_validate(
    {
        "edge_port": 1001,
        "edge_grpc_port": 1007,
        "stock_port": 1002,
        "tax_port": 1003,
        "traces_port": 1004,
        "otlp_port": 1005,
        "reviews_port": 1006,
        "state_dir": Path("/state"),
        "jaeger_bin": None,
    }
)


def programs(environ: dict[str, str] | None = None, settings: Settings = SETTINGS) -> dict[str, Program]:
    mesh = describe(SERVICES, settings, environ or {})
    return {program.name: program for stage in mesh.stages for program in stage}


def test_callers_stop_before_the_services_that_they_call() -> None:
    stages = [[program.name for program in stage] for stage in describe(SERVICES, SETTINGS, {}).stages]
    assert stages == [["api_edge"], ["reviews"], ["stock", "tax"], ["tracebox"]]


def test_each_process_runs_one_python_module() -> None:
    modules = {name: program.argv for name, program in programs().items()}
    assert modules == {
        "api_edge": (sys.executable, "-m", "api_edge"),
        "stock": (sys.executable, "-m", "stock"),
        "tax": (sys.executable, "-m", "tax"),
        "reviews": (sys.executable, "-m", "reviews"),
        "tracebox": (sys.executable, "-m", "tracebox"),
    }


def test_a_service_that_is_left_out_is_not_started_and_its_port_is_not_checked() -> None:
    mesh = describe(SERVICES, SETTINGS.model_copy(update={"without": ("tax", "api_edge")}), {})
    assert [[program.name for program in stage] for stage in mesh.stages] == [["stock", "reviews"], ["tracebox"]]
    assert [program.name for program in mesh.left_out] == ["tax", "api_edge"]
    assert set(mesh.ports) == {"STOCK_PORT", "REVIEWS_PORT", "TRACES_PORT", "OTLP_PORT"}


def test_the_settings_of_a_program_are_the_variables_that_configure_it() -> None:
    environ = {"HOME": "/home", "TAX_LOG_LEVEL": "DEBUG", "STOCK_LOG_LEVEL": "INFO", "OTEL_SERVICE_NAME": "shell"}
    assert programs(environ)["tax"].settings == {
        "OTEL_BSP_SCHEDULE_DELAY": "500",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1005",
        "TAX_DATABASE_URL": "sqlite:////state/tax.db",
        "TAX_DRAIN_SECONDS": "0",
        "TAX_LISTEN": "127.0.0.1:1003",
        "TAX_LOG_LEVEL": "DEBUG",
    }


def test_the_processes_get_each_others_addresses() -> None:
    found = programs()
    assert found["stock"].environment["STOCK_LISTEN"] == "127.0.0.1:1002"
    assert found["tax"].environment["TAX_LISTEN"] == "127.0.0.1:1003"
    assert found["tax"].environment["TAX_DATABASE_URL"] == "sqlite:////state/tax.db"
    assert "REVIEWS_DATABASE_URL" not in found["reviews"].environment
    assert found["reviews"].environment["REVIEWS_TAX_TARGET"] == "127.0.0.1:1003"
    edge = found["api_edge"].environment
    assert edge["EDGE_LISTEN"] == "127.0.0.1:1001"
    assert edge["EDGE_GRPC_LISTEN"] == "127.0.0.1:1007"
    assert edge["EDGE_STOCK_TARGET"] == "127.0.0.1:1002"
    assert edge["EDGE_TAX_TARGET"] == "127.0.0.1:1003"
    assert edge["EDGE_REVIEWS_TARGET"] == "127.0.0.1:1006"
    assert edge["EDGE_TRACE_URL"] == "http://127.0.0.1:1004/trace/{trace_id}"
    assert found["tracebox"].environment["TRACEBOX_OTLP_LISTEN"] == "127.0.0.1:1005"
    assert found["tracebox"].environment["TRACEBOX_QUERY_LISTEN"] == "127.0.0.1:1004"


def test_an_edge_with_a_certificate_has_an_address_of_https() -> None:
    assert programs()["api_edge"].address == "http://127.0.0.1:1001"
    assert programs({"EDGE_TLS_CERT": "cert.pem"})["api_edge"].address == "https://127.0.0.1:1001"
    assert "https://127.0.0.1:1001/docs" in describe(SERVICES, SETTINGS, {"EDGE_TLS_CERT": "cert.pem"}).welcome


@pytest.mark.parametrize("name", GATEWAYS)
def test_a_gateway_stops_before_the_edge_which_trusts_it(name: str) -> None:
    settings = SETTINGS.model_copy(update={"gateway": name, "gateway_port": 1008})
    mesh = describe(SERVICES, settings, {})
    (gateway,), (edge,) = mesh.stages[:2]
    assert (gateway.name, gateway.address, edge.name) == (name, "https://127.0.0.1:1008", "api_edge")
    assert edge.environment["EDGE_TRUSTED_PROXIES"] == "127.0.0.1"
    assert mesh.ports["GATEWAY_PORT"] == 1008
    assert "gateway  https://127.0.0.1:1008/docs" in mesh.welcome


def test_without_a_gateway_nothing_is_prepared_and_the_edge_trusts_nobody() -> None:
    assert describe(SERVICES, SETTINGS, {}).prepare is None
    assert "EDGE_TRUSTED_PROXIES" not in programs()["api_edge"].environment


def test_a_gateway_in_front_of_an_edge_with_tls_is_refused() -> None:
    settings = SETTINGS.model_copy(update={"gateway": "nginx"})
    with pytest.raises(InvalidSettings, match=r"EDGE_TLS_CERT and GATEWAY=nginx: .* set one$"):
        describe(SERVICES, settings, {"EDGE_TLS_CERT": "cert.pem"})


@pytest.mark.parametrize("name", ["100%20", "what?", "a b#c&d=e+f@g:h", "Größe"])
def test_the_databases_are_in_a_state_directory_with_any_name(name: str) -> None:
    settings = SETTINGS.model_copy(update={"state_dir": Path("/state", name)})
    url = programs(settings=settings)["tax"].environment["TAX_DATABASE_URL"]
    assert make_url(url).database == f"/state/{name}/tax.db"
    assert not make_url(url).query


@pytest.mark.parametrize("service", [service.name for service in SERVICES])
def test_metrics_go_to_the_endpoint_of_the_shell_and_never_to_the_trace_backend(service: str) -> None:
    endpoint = {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://collector.example:4317"}
    environment = programs({**endpoint, "OTEL_METRICS_EXPORTER": "otlp"})[service].environment
    assert environment.items() >= endpoint.items()
    assert "OTEL_METRICS_EXPORTER" not in environment


@pytest.mark.parametrize("service", [service.name for service in SERVICES])
def test_spans_go_to_the_trace_backend_of_the_mesh_even_if_the_shell_names_another(service: str) -> None:
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector.example:4317",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector.example:4317",
        "OTEL_EXPORTER_OTLP_HEADERS": "authorization=secret",
        "OTEL_SERVICE_NAME": "shell",
        "OTEL_TRACES_EXPORTER": "console",
    }
    environment = programs(environ)[service].environment
    assert {
        name: value
        for name, value in environment.items()
        if name.startswith(("OTEL_EXPORTER", "OTEL_SERVICE", "OTEL_TRACES_E"))
    } == {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1005"}


def test_a_database_a_sampler_and_delays_of_the_shell_replace_the_defaults() -> None:
    environ = {
        "STOCK_DATABASE_URL": "postgresql+asyncpg://127.0.0.1/stock",
        "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "STOCK_DRAIN_SECONDS": "3",
    }
    assert environ.items() <= programs(environ)["stock"].environment.items()
    ours = programs()["stock"].environment
    assert (ours["OTEL_BSP_SCHEDULE_DELAY"], ours["STOCK_DRAIN_SECONDS"]) == ("500", "0")


@pytest.mark.parametrize(
    ("given", "passed"),
    [
        ("service.name=mine,team=x", "team=x"),
        ("team=x, service.name = mine ,service.instance.id=7,service.version=2", "team=x,service.version=2"),
        ("service.name=mine", None),
        ("", None),
    ],
)
def test_the_resource_attributes_of_the_shell_do_not_rename_the_services(given: str, passed: str | None) -> None:
    environment = programs({"OTEL_RESOURCE_ATTRIBUTES": given, "OTEL_SERVICE_NAME": "mine"})["tax"].environment
    assert (environment.get("OTEL_RESOURCE_ATTRIBUTES"), "OTEL_SERVICE_NAME" in environment) == (passed, False)


def test_a_jaeger_replaces_tracebox_on_the_same_ports() -> None:
    found = programs(settings=SETTINGS.model_copy(update={"jaeger_bin": "/usr/bin/jaeger"}))
    assert "tracebox" not in found
    program, option, config = found["jaeger"].argv
    assert (program, option) == ("/usr/bin/jaeger", "--config")
    settings = json.loads(config.removeprefix("yaml:"))
    assert settings["receivers"]["otlp"]["protocols"] == {"grpc": {"endpoint": "127.0.0.1:1005"}}
    assert settings["extensions"]["jaeger_query"]["http"] == {"endpoint": "127.0.0.1:1004"}
