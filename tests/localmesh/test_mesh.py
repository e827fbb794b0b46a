"""Which processes `make up` starts, with which environment and in which order they stop."""

import json
import sys
from pathlib import Path

import pytest
from sqlalchemy import make_url

from localmesh.mesh import Program, describe
from localmesh.services import Service
from localmesh.settings import Settings, settings_for

pytestmark = pytest.mark.unit

SERVICES = (
    Service("stock", 50051, "grpc", database=True, after=()),
    Service("tax", 50052, "grpc", database=True, after=()),
    Service("reviews", 50053, "grpc", database=False, after=("tax",)),
    Service("api_edge", 8080, "http", database=False, after=("stock", "tax", "reviews")),
)
SETTINGS = settings_for(SERVICES).model_validate(
    {
        "edge_port": 1001,
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


def test_callers_stop_before_those_they_call() -> None:
    stages = [[program.name for program in stage] for stage in describe(SERVICES, SETTINGS, {}).stages]
    assert stages == [["api_edge"], ["reviews"], ["stock", "tax"], ["tracebox"]]


def test_each_process_is_python_running_one_module() -> None:
    modules = {name: program.argv for name, program in programs().items()}
    assert modules == {
        "api_edge": (sys.executable, "-m", "api_edge"),
        "stock": (sys.executable, "-m", "stock"),
        "tax": (sys.executable, "-m", "tax"),
        "reviews": (sys.executable, "-m", "reviews"),
        "tracebox": (sys.executable, "-m", "tracebox"),
    }


def test_a_service_that_is_left_out_is_not_started_and_its_port_may_be_taken() -> None:
    mesh = describe(SERVICES, SETTINGS.model_copy(update={"without": ("tax", "api_edge")}), {})
    assert [[program.name for program in stage] for stage in mesh.stages] == [["stock", "reviews"], ["tracebox"]]
    assert [program.name for program in mesh.left_out] == ["tax", "api_edge"]
    assert set(mesh.ports) == {"STOCK_PORT", "REVIEWS_PORT", "TRACES_PORT", "OTLP_PORT"}


def test_a_program_knows_which_variables_are_about_it() -> None:
    environ = {"HOME": "/home", "TAX_LOG_LEVEL": "DEBUG", "STOCK_LOG_LEVEL": "INFO", "OTEL_SERVICE_NAME": "shell"}
    assert programs(environ)["tax"].settings == {
        "OTEL_BSP_SCHEDULE_DELAY": "500",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1005",
        "TAX_DATABASE_URL": "sqlite:////state/tax.db",
        "TAX_DRAIN_SECONDS": "0",
        "TAX_LISTEN": "127.0.0.1:1003",
        "TAX_LOG_LEVEL": "DEBUG",
        "no_grpc_proxy": "127.0.0.1",
    }


def test_the_processes_are_wired_to_each_other() -> None:
    found = programs()
    assert found["stock"].environment["STOCK_LISTEN"] == "127.0.0.1:1002"
    assert found["tax"].environment["TAX_LISTEN"] == "127.0.0.1:1003"
    assert found["tax"].environment["TAX_DATABASE_URL"] == "sqlite:////state/tax.db"
    assert "REVIEWS_DATABASE_URL" not in found["reviews"].environment
    assert found["reviews"].environment["REVIEWS_TAX_TARGET"] == "127.0.0.1:1003"
    edge = found["api_edge"].environment
    assert edge["EDGE_LISTEN"] == "127.0.0.1:1001"
    assert edge["EDGE_STOCK_TARGET"] == "127.0.0.1:1002"
    assert edge["EDGE_TAX_TARGET"] == "127.0.0.1:1003"
    assert edge["EDGE_REVIEWS_TARGET"] == "127.0.0.1:1006"
    assert edge["EDGE_TRACE_URL"] == "http://127.0.0.1:1004/trace/{trace_id}"
    assert found["tracebox"].environment["TRACEBOX_OTLP_LISTEN"] == "127.0.0.1:1005"
    assert found["tracebox"].environment["TRACEBOX_QUERY_LISTEN"] == "127.0.0.1:1004"


@pytest.mark.parametrize("name", ["100%20", "what?", "a b#c&d=e+f@g:h", "Größe"])
def test_the_databases_are_in_the_state_directory_whatever_its_name(name: str) -> None:
    settings = SETTINGS.model_copy(update={"state_dir": Path("/state", name)})
    url = programs(settings=settings)["tax"].environment["TAX_DATABASE_URL"]
    assert make_url(url).database == f"/state/{name}/tax.db"
    assert not make_url(url).query


@pytest.mark.parametrize("service", [service.name for service in SERVICES])
def test_metrics_go_where_the_shell_says_and_never_to_the_trace_backend(service: str) -> None:
    endpoint = {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://collector.example:4317"}
    environment = programs({**endpoint, "OTEL_METRICS_EXPORTER": "otlp"})[service].environment
    assert environment.items() >= endpoint.items()
    assert "OTEL_METRICS_EXPORTER" not in environment


@pytest.mark.parametrize("service", [service.name for service in SERVICES])
def test_spans_go_to_the_meshs_own_trace_backend_whatever_the_shell_says(service: str) -> None:
    environ = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector.example:4317",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector.example:4317",
        "OTEL_EXPORTER_OTLP_HEADERS": "authorization=secret",
        "OTEL_SERVICE_NAME": "shell",
        "OTEL_TRACES_EXPORTER": "console",
    }
    given = programs(environ)[service].environment
    assert {
        name: value
        for name, value in given.items()
        if name.startswith(("OTEL_EXPORTER", "OTEL_SERVICE", "OTEL_TRACES_E"))
    } == {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1005"}


def test_a_users_database_sampler_and_delays_win() -> None:
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
    ("environ", "direct"),
    [
        ({}, "127.0.0.1"),
        ({"no_proxy": "example.org"}, "example.org,127.0.0.1"),
        ({"no_proxy": "example.org", "no_grpc_proxy": "example.com"}, "example.com,127.0.0.1"),
    ],
)
def test_no_call_within_the_mesh_goes_through_a_proxy(environ: dict[str, str], direct: str) -> None:
    assert programs(environ)["api_edge"].environment["no_grpc_proxy"] == direct


def test_a_jaeger_takes_the_place_of_tracebox_on_the_same_ports() -> None:
    found = programs(settings=SETTINGS.model_copy(update={"jaeger_bin": "/usr/bin/jaeger"}))
    assert "tracebox" not in found
    program, option, config = found["jaeger"].argv
    assert (program, option) == ("/usr/bin/jaeger", "--config")
    wanted = json.loads(config.removeprefix("yaml:"))
    assert wanted["receivers"]["otlp"]["protocols"] == {"grpc": {"endpoint": "127.0.0.1:1005"}}
    assert wanted["extensions"]["jaeger_query"]["http"] == {"endpoint": "127.0.0.1:1004"}
