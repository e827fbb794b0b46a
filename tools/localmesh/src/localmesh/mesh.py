"""Which processes make the mesh, and with which environment: data only, nothing is started here."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from localmesh.probe import HOST, Probe, accepts, all_of, answers, serves
from localmesh.services import ROOT, Service
from localmesh.settings import Settings
from localmesh.welcome import welcome

OTLP_EXPORTER = "OTEL_EXPORTER_OTLP_"
# The mesh has no place for metrics of its own, so these may go where the user's shell says.
METRICS_EXPORTER = f"{OTLP_EXPORTER}METRICS_"
NOT_INHERITED = {"OTEL_SERVICE_NAME", "OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER"}
# A trace is complete in the trace backend within 2 s of the answer; OpenTelemetry's own delay is 5 s.
SPANS_SOON = {"OTEL_BSP_SCHEDULE_DELAY": "500"}
# Nobody balances load over a single local process: there is nobody to wait for before it stops to serve.
DRAIN_SECONDS = "0"
# What would not be part of the path in a database URL.
ESCAPED = str.maketrans({"%": "%25", "?": "%3F"})


@dataclass(frozen=True)
class Program:
    """One process of the mesh: how it is started, where it is found, and how it says that it can serve."""

    name: str
    argv: tuple[str, ...]
    """The absolute path of the program, and its arguments."""
    environment: Mapping[str, str]
    address: str
    ready: Probe
    settings: Mapping[str, str] = field(default_factory=dict)
    """The part of the environment that is about this program."""
    sources: tuple[Path, ...] = ()
    """The folders whose changes restart it."""

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.address.rpartition(":")[2])


@dataclass(frozen=True)
class Mesh:
    """The processes of a mesh and the ports that they take."""

    stages: tuple[tuple[Program, ...], ...]
    """In the order in which they stop: callers before those they call."""
    ports: Mapping[str, int]
    """Each under the variable that moves it."""
    welcome: str = ""
    """Printed below the table when all are ready."""
    left_out: tuple[Program, ...] = ()
    """The user starts them."""


def describe(services: Sequence[Service], settings: Settings, environ: Mapping[str, str]) -> Mesh:
    """The mesh of the services and a trace backend; `environ` is what children inherit.

    A variable of `environ` wins over our defaults (a database, the sampler) but not over the wiring: addresses, and
    where spans go. A collector that the user's shell names for other work must not take this mesh's traces away.
    """
    # A port of another service may look like a setting: GIFT_CARDS_PORT to a service `gift`.
    inherited = _inherited({name: value for name, value in environ.items() if name not in settings.ports})
    programs = {service: _program(service, services, settings, inherited) for service in services}
    started = [service for service in services if service.name not in settings.without]
    stages = [tuple(programs[service] for service in stage) for stage in _stages(started)]
    traces = _jaeger(settings, inherited) if settings.jaeger_bin else _tracebox(settings, inherited)
    edge = next(service for service in services if service.protocol == "http")
    left_out = tuple(programs[service] for service in services if service not in started)
    taken = {service.port_variable for service in services if service not in started}
    ports = {name: port for name, port in settings.ports.items() if name not in taken}
    return Mesh((*stages, (traces,)), ports, welcome(settings.port_of(edge), settings), left_out)


def _stages(services: Sequence[Service]) -> list[list[Service]]:
    """The services by how deep their calls go, the deepest first; `services` has those that are called first."""
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
    # gRPC's core sends calls, to loopback addresses too, through a proxy that the environment names.
    direct = kept.get("no_grpc_proxy") or kept.get("no_proxy") or ""
    return {**kept, "no_grpc_proxy": ",".join(filter(None, (direct, HOST))), "PYTHONUNBUFFERED": "1"}


def _program(
    service: Service, services: Sequence[Service], settings: Settings, inherited: Mapping[str, str]
) -> Program:
    port, prefix = settings.port_of(service), service.prefix
    defaults = {f"{prefix}DRAIN_SECONDS": DRAIN_SECONDS, **SPANS_SOON}
    if service.database:
        path = str(settings.state_dir / service.name).translate(ESCAPED)
        defaults[f"{prefix}DATABASE_URL"] = f"sqlite:///{path}.db"
    targets = {
        f"{prefix}{other.prefix}TARGET": f"{HOST}:{settings.port_of(other)}"
        for other in services
        if other.name in service.after
    }
    wiring = {f"{prefix}LISTEN": f"{HOST}:{port}", **targets, **_exporting(settings)}
    if service.protocol == "http":
        wiring[f"{prefix}TRACE_URL"] = f"http://{HOST}:{settings.traces_port}/trace/{{trace_id}}"
    environment = {**defaults, **inherited, **wiring}
    return Program(
        service.name,
        (sys.executable, "-m", service.name),
        environment,
        f"http://{HOST}:{port}" if service.protocol == "http" else f"{HOST}:{port}",
        answers(port, "/readyz") if service.protocol == "http" else serves(port, service.grpc_name),
        {name: value for name, value in environment.items() if name.startswith((prefix, "OTEL_", "no_grpc_proxy"))},
        _sources(service) if settings.reload else (),
    )


def _sources(service: Service) -> tuple[Path, ...]:
    """Its own, and the libraries that every service may use."""
    return (ROOT / "services" / service.name / "src", *sorted(ROOT.glob("libs/*/src")))


def _exporting(settings: Settings) -> dict[str, str]:
    return {f"{OTLP_EXPORTER}ENDPOINT": f"http://{HOST}:{settings.otlp_port}"}


def _tracebox(settings: Settings, inherited: Mapping[str, str]) -> Program:
    wiring = {
        "TRACEBOX_OTLP_LISTEN": f"{HOST}:{settings.otlp_port}",
        "TRACEBOX_QUERY_LISTEN": f"{HOST}:{settings.traces_port}",
    }
    argv = (sys.executable, "-m", "tracebox")
    return _traces("tracebox", argv, {**inherited, **wiring}, settings)


def _jaeger(settings: Settings, inherited: Mapping[str, str]) -> Program:
    # Jaeger traces itself by default, and then holds up its own end for 10 s to export those spans.
    environment = {**inherited, "OTEL_TRACES_SAMPLER": "always_off"}
    argv = (str(settings.jaeger_bin), "--config", f"yaml:{json.dumps(_jaeger_config(settings))}")
    return _traces("jaeger", argv, environment, settings)


def _traces(name: str, argv: tuple[str, ...], environment: Mapping[str, str], settings: Settings) -> Program:
    ready = all_of(answers(settings.traces_port, "/api/services"), accepts(settings.otlp_port))
    return Program(name, argv, environment, f"http://{HOST}:{settings.traces_port}", ready)


def _jaeger_config(settings: Settings) -> dict[str, object]:
    """Jaeger v2 with spans in memory and nothing on a fixed port but OTLP and the query API."""
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
