"""Which processes `make up` starts, with which environment and in which order they stop."""

import json
import sys
from pathlib import Path

import pytest
from sqlalchemy import make_url

from localmesh.mesh import Program, describe
from localmesh.settings import Settings

pytestmark = pytest.mark.unit

SETTINGS = Settings(
    edge_port=1001,
    inventory_port=1002,
    pricing_port=1003,
    traces_port=1004,
    otlp_port=1005,
    state_dir=Path("/state"),
    jaeger_bin=None,
)


def programs(environ: dict[str, str] | None = None, settings: Settings = SETTINGS) -> dict[str, Program]:
    mesh = describe(settings, environ or {})
    return {program.name: program for stage in mesh.stages for program in stage}


def test_callers_stop_before_those_they_call() -> None:
    stages = [[program.name for program in stage] for stage in describe(SETTINGS, {}).stages]
    assert stages == [["api_edge"], ["pricing", "inventory"], ["tracebox"]]


def test_each_process_is_python_running_one_module() -> None:
    modules = {name: program.argv for name, program in programs().items()}
    assert modules == {
        "api_edge": (sys.executable, "-m", "api_edge"),
        "inventory": (sys.executable, "-m", "inventory"),
        "pricing": (sys.executable, "-m", "pricing"),
        "tracebox": (sys.executable, "-m", "tracebox"),
    }


def test_the_processes_are_wired_to_each_other() -> None:
    found = programs()
    assert found["inventory"].environment["INVENTORY_LISTEN"] == "127.0.0.1:1002"
    assert found["pricing"].environment["PRICING_LISTEN"] == "127.0.0.1:1003"
    assert found["pricing"].environment["PRICING_DATABASE_URL"] == "sqlite:////state/pricing.db"
    edge = found["api_edge"].environment
    assert edge["EDGE_LISTEN"] == "127.0.0.1:1001"
    assert edge["EDGE_INVENTORY_TARGET"] == "127.0.0.1:1002"
    assert edge["EDGE_PRICING_TARGET"] == "127.0.0.1:1003"
    assert edge["EDGE_TRACE_URL"] == "http://127.0.0.1:1004/trace/{trace_id}"
    assert found["tracebox"].environment["TRACEBOX_OTLP_LISTEN"] == "127.0.0.1:1005"
    assert found["tracebox"].environment["TRACEBOX_QUERY_LISTEN"] == "127.0.0.1:1004"


@pytest.mark.parametrize("name", ["100%20", "what?", "a b#c&d=e+f@g:h", "Größe"])
def test_the_databases_are_in_the_state_directory_whatever_its_name(name: str) -> None:
    settings = SETTINGS.model_copy(update={"state_dir": Path("/state", name)})
    url = programs(settings=settings)["pricing"].environment["PRICING_DATABASE_URL"]
    assert make_url(url).database == f"/state/{name}/pricing.db"
    assert not make_url(url).query


@pytest.mark.parametrize("service", ["api_edge", "inventory", "pricing"])
def test_metrics_go_where_the_shell_says_and_never_to_the_trace_backend(service: str) -> None:
    endpoint = {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://collector.example:4317"}
    environment = programs({**endpoint, "OTEL_METRICS_EXPORTER": "otlp"})[service].environment
    assert environment.items() >= endpoint.items()
    assert "OTEL_METRICS_EXPORTER" not in environment


@pytest.mark.parametrize("service", ["api_edge", "inventory", "pricing"])
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
        "INVENTORY_DATABASE_URL": "postgresql+asyncpg://127.0.0.1/inventory",
        "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "INVENTORY_DRAIN_SECONDS": "3",
    }
    assert environ.items() <= programs(environ)["inventory"].environment.items()
    ours = programs()["inventory"].environment
    assert (ours["OTEL_BSP_SCHEDULE_DELAY"], ours["INVENTORY_DRAIN_SECONDS"]) == ("500", "0")


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
