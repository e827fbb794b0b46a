"""Describes the processes of a mesh and their environments. Starts nothing."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from localmesh.gateways import local as local_gateway
from localmesh.probe import HOST, Probe, accepts, all_of, responds, serves
from localmesh.program import Program
from localmesh.services import ROOT, Service
from localmesh.settings import InvalidSettings
from localmesh.welcome import welcome

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from localmesh.settings import Settings

OTLP_EXPORTER = "OTEL_EXPORTER_OTLP_"
# The mesh has no metrics backend, so metrics may go where the user's shell says.
METRICS_EXPORTER = f"{OTLP_EXPORTER}METRICS_"
# Each process has a name and an instance of its own, whatever the user's shell is set to for other work.
ATTRIBUTES, OWN_ATTRIBUTES = "OTEL_RESOURCE_ATTRIBUTES", {"", "service.name", "service.instance.id"}
NOT_INHERITED = {"OTEL_SERVICE_NAME", "OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER"}
# So that a trace is complete within 2 s of the response: OpenTelemetry's default delay is 5 s.
SPANS_SOON = {"OTEL_BSP_SCHEDULE_DELAY": "500"}
# A drain gives load balancers time to choose another replica, and here each service has only one process.
DRAIN_SECONDS = "0"
# Characters with a special meaning in the path of a database URL.
URL_ESCAPES = str.maketrans({"%": "%25", "?": "%3F"})


@dataclass(frozen=True)
class Mesh:
    """The processes of a mesh and the ports that they use."""

    stages: tuple[tuple[Program, ...], ...]
    """In the order in which they stop: callers before the services that they call."""
    ports: Mapping[str, int]
    """The port numbers by the variable that changes each."""
    welcome: str = ""
    """Printed below the table when all processes are ready."""
    left_out: tuple[Program, ...] = ()
    """The programs that the user starts."""
    prepare: Callable[[Callable[[str], None]], None] | None = None
    """What has to be done before the start, in a state directory that is locked; takes what reports progress."""


def describe(services: Sequence[Service], settings: Settings, environ: Mapping[str, str]) -> Mesh:
    """The mesh of the services and a trace backend; children inherit `environ`.

    Variables of `environ` replace our defaults, such as a database or the sampler. They do not replace the addresses
    and the destination of spans: a collector that the user's shell names for other work must not get these traces.
    """
    # The port of one service may look like a setting of another: GIFT_CARDS_PORT of a service `gift`.
    inherited = _inherited({name: value for name, value in environ.items() if name not in settings.ports})
    programs = {service: _program(service, services, settings, inherited) for service in services}
    own = [service for service in services if service.name not in settings.without]
    stages = [tuple(programs[service] for service in stage) for stage in _stages(own)]
    traces = _jaeger(settings, inherited) if settings.jaeger_bin else _tracebox(settings, inherited)
    edge = next(service for service in services if service.protocol == "http")
    left_out = tuple(programs[service] for service in services if service not in own)
    others = {variable for service in services if service not in own for variable in service.ports}
    ports = {name: port for name, port in settings.ports.items() if name not in others}
    stages.insert(0, gateways := _gateways(settings, edge, inherited, programs[edge]))
    return Mesh(
        (*filter(None, stages), (traces,)),
        ports,
        welcome(programs[edge].address, settings, settings.grpc_address_of(edge), *(each.address for each in gateways)),
        left_out,
        local_gateway.preparation(settings, edge) if gateways else None,
    )


def _gateways(settings: Settings, edge: Service, inherited: Mapping[str, str], behind: Program) -> tuple[Program, ...]:
    if settings.gateway and inherited.get(variable := f"{edge.prefix}TLS_CERT"):
        raise InvalidSettings(
            f"{variable} and GATEWAY={settings.gateway}: a gateway calls an edge without TLS; set one"
        )
    return (local_gateway.program(settings, edge, inherited, behind.ready),) if settings.gateway else ()


def _stages(services: Sequence[Service]) -> list[list[Service]]:
    """The services by the depth of their calls, the deepest first. In `services` each stands after those it calls."""
    depth: dict[str, int] = {}
    for service in services:
        depth[service.name] = 1 + max((depth.get(name, 0) for name in service.after), default=0)
    levels = sorted(set(depth.values()), reverse=True)
    return [[service for service in services if depth[service.name] == level] for level in levels]


def _inherited(environ: Mapping[str, str]) -> dict[str, str]:
    kept = {
        name: value
        for name, value in environ.items()
        if name.startswith(METRICS_EXPORTER) or not (name.startswith(OTLP_EXPORTER) or name in NOT_INHERITED)
    }
    attributes = kept.pop(ATTRIBUTES, "").split(",")
    if others := [pair for pair in attributes if pair.partition("=")[0].strip() not in OWN_ATTRIBUTES]:
        kept[ATTRIBUTES] = ",".join(others)
    return {**kept, "PYTHONUNBUFFERED": "1"}


def _program(
    service: Service, services: Sequence[Service], settings: Settings, inherited: Mapping[str, str]
) -> Program:
    port, prefix = settings.port_of(service), service.prefix
    defaults = {f"{prefix}DRAIN_SECONDS": DRAIN_SECONDS, **SPANS_SOON}
    if service.database:
        path = str(settings.state_dir / service.name).translate(URL_ESCAPES)
        defaults[f"{prefix}DATABASE_URL"] = f"sqlite:///{path}.db"
    if settings.gateway and service.protocol == "http":
        defaults[f"{prefix}TRUSTED_PROXIES"] = HOST
    targets = {
        f"{prefix}{other.prefix}TARGET": f"{HOST}:{settings.port_of(other)}"
        for other in services
        if other.name in service.after
    }
    wiring = {f"{prefix}LISTEN": f"{HOST}:{port}", **targets, **_exporter(settings)}
    if grpc_address := settings.grpc_address_of(service):
        wiring[f"{prefix}GRPC_LISTEN"] = grpc_address
    if service.protocol == "http":
        wiring[f"{prefix}TRACE_URL"] = f"http://{HOST}:{settings.traces_port}/trace/{{trace_id}}"
    environment = {**defaults, **inherited, **wiring}
    scheme = "https" if environment.get(f"{prefix}TLS_CERT") else "http"
    return Program(
        service.name,
        (sys.executable, "-m", service.name),
        environment,
        f"{scheme}://{HOST}:{port}" if service.protocol == "http" else f"{HOST}:{port}",
        _is_ready(service, settings, tls=scheme == "https"),
        {name: value for name, value in environment.items() if name.startswith((prefix, "OTEL_"))},
        _sources(service) if settings.reload else (),
    )


def _is_ready(service: Service, settings: Settings, *, tls: bool) -> Probe:
    port = settings.port_of(service)
    if service.protocol == "grpc":
        return serves(port, service.grpc_name)
    if not service.grpc_port:
        return responds(port, "/readyz", tls=tls)
    return all_of(
        responds(port, "/readyz", tls=tls), serves(settings.ports[service.grpc_port_variable], service.grpc_name)
    )


def _sources(service: Service) -> tuple[Path, ...]:
    """The sources of the service, and of the libraries that every service may use."""
    return (ROOT / "services" / service.name / "src", *sorted(ROOT.glob("libs/*/src")))


def _exporter(settings: Settings) -> dict[str, str]:
    return {f"{OTLP_EXPORTER}ENDPOINT": f"http://{HOST}:{settings.otlp_port}"}


def _tracebox(settings: Settings, inherited: Mapping[str, str]) -> Program:
    wiring = {
        "TRACEBOX_OTLP_LISTEN": f"{HOST}:{settings.otlp_port}",
        "TRACEBOX_QUERY_LISTEN": f"{HOST}:{settings.traces_port}",
    }
    argv = (sys.executable, "-m", "tracebox")
    return _traces("tracebox", argv, {**inherited, **wiring}, settings)


def _jaeger(settings: Settings, inherited: Mapping[str, str]) -> Program:
    # By default Jaeger traces itself, and then takes 10 s to stop, because it exports those spans.
    environment = {**inherited, "OTEL_TRACES_SAMPLER": "always_off"}
    argv = (str(settings.jaeger_bin), "--config", f"yaml:{json.dumps(_jaeger_config(settings))}")
    return _traces("jaeger", argv, environment, settings)


def _traces(name: str, argv: tuple[str, ...], environment: Mapping[str, str], settings: Settings) -> Program:
    ready = all_of(responds(settings.traces_port, "/api/services"), accepts(settings.otlp_port))
    return Program(name, argv, environment, f"http://{HOST}:{settings.traces_port}", ready)


def _jaeger_config(settings: Settings) -> dict[str, object]:
    """Jaeger v2 with spans in memory; only OTLP and the query API have fixed ports."""
    grpc_query = {"endpoint": f"{HOST}:0"}
    http_query = {"endpoint": f"{HOST}:{settings.traces_port}"}
    query = {"storage": {"traces": "memory"}, "http": http_query, "grpc": grpc_query}
    return {
        "service": {
            "extensions": ["jaeger_storage", "jaeger_query"],
            "pipelines": {"traces": {"receivers": ["otlp"], "exporters": ["jaeger_storage_exporter"]}},
            "telemetry": {"metrics": {"level": "none"}},
        },
        "extensions": {
            "jaeger_storage": {"backends": {"memory": {"memory": {"max_traces": 10_000}}}},
            "jaeger_query": query,
        },
        "receivers": {"otlp": {"protocols": {"grpc": {"endpoint": f"{HOST}:{settings.otlp_port}"}}}},
        "exporters": {"jaeger_storage_exporter": {"trace_storage": "memory"}},
    }
