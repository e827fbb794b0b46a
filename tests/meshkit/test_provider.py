"""Only the standard variables configure telemetry."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import TYPE_CHECKING

import grpc
import pytest
from opentelemetry.propagate import get_global_textmap, set_global_textmap
from opentelemetry.sdk.trace import ReadableSpan

from meshkit.telemetry.endpoints import is_here
from meshkit.telemetry.invalid_variables import OTHER_SAMPLERS, SAMPLERS
from meshkit.telemetry.provider import configure, resource
from meshkit.telemetry.variables import exports_metrics, exports_spans
from meshkit.testing import start_server

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from opentelemetry.sdk.resources import Resource

TRACES = "opentelemetry.proto.collector.trace.v1.TraceService"
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No variable is set, and the propagators of a test end with it."""
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    before = get_global_textmap()
    yield
    set_global_textmap(before)


def exporters() -> set[threading.Thread]:
    """The exporter threads, without those of the event loop's executor."""
    return {thread for thread in threading.enumerate() if "asyncio" not in thread.name}


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The log messages, without asyncio's warnings about slow callbacks."""
    return [record.getMessage() for record in caplog.records if record.name != "asyncio"]


def emits(found: Resource, expected: Mapping[str, object]) -> bool:
    return found.attributes.items() >= expected.items()


@pytest.mark.parametrize("endpoint", [None, ""])
async def test_nothing_is_exported_without_an_endpoint(monkeypatch: pytest.MonkeyPatch, endpoint: str | None) -> None:
    if endpoint is not None:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
    before = exporters()
    telemetry = configure("shop")
    with telemetry.tracer_provider.get_tracer("shop").start_as_current_span("sell") as span:
        assert span.is_recording()
    assert exporters() <= before
    await telemetry.shutdown()


@pytest.mark.parametrize("variable", ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"])
async def test_an_endpoint_enables_the_export(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, NOWHERE)
    before = exporters()
    telemetry = configure("shop")
    assert exporters() - before
    await telemetry.shutdown()


async def test_shutdown_may_be_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", NOWHERE)
    before = exporters()
    telemetry = configure("shop")
    await telemetry.shutdown()
    await telemetry.shutdown()
    assert exporters() <= before


def test_the_service_name_is_that_of_the_process() -> None:
    assert emits(resource("shop"), {"service.name": "shop", "process.pid": os.getpid()})


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"OTEL_SERVICE_NAME": "corner-shop"}, {"service.name": "corner-shop"}),
        ({"OTEL_SERVICE_NAME": ""}, {"service.name": "shop"}),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=kiosk,zone=a"}, {"service.name": "kiosk", "zone": "a"}),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.instance.id=pod-7"}, {"service.instance.id": "pod-7"}),
        (
            {"OTEL_SERVICE_NAME": "corner-shop", "OTEL_RESOURCE_ATTRIBUTES": "service.name=kiosk"},
            {"service.name": "corner-shop"},
        ),
    ],
)
def test_the_standard_variables_take_precedence(
    monkeypatch: pytest.MonkeyPatch, variables: Mapping[str, str], expected: Mapping[str, object]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert emits(resource("shop"), expected)


async def test_spans_identify_their_process() -> None:
    one, other = configure("shop"), configure("shop")
    ids = {telemetry.tracer_provider.resource.attributes["service.instance.id"] for telemetry in (one, other)}
    assert len(ids) == 2
    assert all(len(str(each)) == 36 for each in ids)


def test_metrics_are_on_the_page() -> None:
    telemetry = configure("shop", prometheus=True)
    telemetry.meter_provider.get_meter("shop").create_counter("sales").add(3)
    assert telemetry.page
    assert b"sales_total" in telemetry.page.render("", "")[1]
    asyncio.run(telemetry.shutdown())


@pytest.mark.parametrize(
    ("variables", "exports"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": NOWHERE}, True),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": NOWHERE, "OTEL_METRICS_EXPORTER": "none"}, False),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": ""}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": NOWHERE}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": NOWHERE, "OTEL_METRICS_EXPORTER": "otlp"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": NOWHERE, "OTEL_METRICS_EXPORTER": "prometheus,otlp"}, True),
        ({"OTEL_METRICS_EXPORTER": "otlp"}, False),
    ],
)
def test_metrics_are_exported_to_a_metrics_endpoint(
    monkeypatch: pytest.MonkeyPatch, variables: Mapping[str, str], *, exports: bool
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert exports_metrics() is exports


@pytest.mark.parametrize(
    ("variables", "exports"),
    [
        ({}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "console, OTLP"}, True),
        ({"OTEL_TRACES_EXPORTER": ""}, True),
        ({"OTEL_TRACES_EXPORTER": "none"}, False),
        ({"OTEL_TRACES_EXPORTER": "console"}, False),
        ({"OTEL_SDK_DISABLED": "True"}, False),
    ],
)
def test_spans_are_exported_unless_the_exporter_is_another_or_none(
    monkeypatch: pytest.MonkeyPatch, variables: Mapping[str, str], *, exports: bool
) -> None:
    for name, value in ({"OTEL_EXPORTER_OTLP_ENDPOINT": NOWHERE} | dict(variables)).items():
        monkeypatch.setenv(name, value)
    assert exports_spans() is exports


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "OTEL_TRACES_EXPORTER",
            "console",
            "OTEL_TRACES_EXPORTER=console is not supported and is ignored; supported: otlp, none",
        ),
        (
            "OTEL_METRICS_EXPORTER",
            "none,Console",
            "OTEL_METRICS_EXPORTER=console is not supported and is ignored; supported: otlp, prometheus, none",
        ),
        ("OTEL_LOGS_EXPORTER", "otlp", "OTEL_LOGS_EXPORTER=otlp is not supported and is ignored; supported: none"),
        (
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
            "http/protobuf",
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=http/protobuf is not supported and is ignored; supported: grpc",
        ),
        ("OTEL_CONFIG_FILE", "x.yaml", "OTEL_CONFIG_FILE is not supported and is ignored"),
        (
            "OTEL_EXPORTER_OTLP_LOGS_HEADERS",
            "a=secret",
            "OTEL_EXPORTER_OTLP_LOGS_HEADERS is not supported and is ignored",
        ),
        ("OTEL_BLRP_SCHEDULE_DELAY", "1", "OTEL_BLRP_SCHEDULE_DELAY is not supported and is ignored"),
        (
            "OTEL_BSP_SCHEDULE_DELAY",
            "0",
            "OTEL_BSP_SCHEDULE_DELAY=0 is not supported and is ignored; supported: numbers greater than 0",
        ),
        (
            "OTEL_PROPAGATORS",
            "B3,TraceContext,xray",
            "OTEL_PROPAGATORS=b3,xray is not supported and is ignored; supported: tracecontext, baggage, none",
        ),
    ],
)
def test_unsupported_values_are_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str, value: str, message: str
) -> None:
    monkeypatch.setenv(name, value)
    configure("shop")
    assert messages(caplog) == [message]


@pytest.mark.parametrize(
    "name", ["OTEL_TRACES_SAMPLER", "OTEL_EXPORTER_OTLP_TIMEOUT", "OTEL_PROPAGATORS", "OTEL_TRACES_EXPORTER"]
)
async def test_an_empty_variable_counts_as_unset(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", NOWHERE)
    monkeypatch.setenv(name, " ")
    await configure("shop").shutdown()
    assert messages(caplog) == []


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon", "must be a number of at least 0"),
        ("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "-1", "must be a number of at least 0"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "-1", "must be a whole number of at least 0"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "1_000", "must be a whole number of at least 0"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "2147483648", "must be a whole number of at least 1"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "99999", "must be at most OTEL_BSP_MAX_QUEUE_SIZE"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "7z", "must be one of gzip, none"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "thrift", "must be one of grpc"),
        ("OTEL_EXPORTER_OTLP_INSECURE", "yes", "must be one of true, false"),
        ("OTEL_SDK_DISABLED", "1", "must be one of true, false"),
        ("OTEL_METRICS_EXPORTER", "x", "must be one of otlp, prometheus, none"),
        ("OTEL_PROPAGATORS", "pigeon", "must be one of tracecontext, baggage, none"),
        ("OTEL_METRICS_EXEMPLAR_FILTER", "some", "must be one of always_on, always_off, trace_based"),
        ("OTEL_RESOURCE_ATTRIBUTES", "team", "must be name=value pairs, separated by commas"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0", "must be a whole number of at least 1"),
        ("OTEL_BSP_SCHEDULE_DELAY", "5s", "must be a whole number of at least 0"),
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "few", "must be a whole number of at least 0"),
        ("OTEL_TRACES_SAMPLER", "nonsense", f"must be one of {', '.join(SAMPLERS)}"),
    ],
)
def test_an_invalid_value_ends_the_start_with_one_line_that_names_its_variable(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str, reason: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as ended:
        configure("shop")
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"{name}={value}: {reason}\n"


@pytest.mark.parametrize("sampler", OTHER_SAMPLERS)
def test_a_sampler_that_the_sdk_lacks_is_ignored_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, sampler: str
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", sampler)
    configure("shop")
    warning = f"OTEL_TRACES_SAMPLER={sampler} is not supported and is ignored; supported: {', '.join(SAMPLERS)}"
    assert messages(caplog) == [warning]


@pytest.mark.parametrize("argument", ["much", "2", "nan"])
def test_the_ratio_of_a_sampler_is_from_0_to_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], argument: str
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", argument)
    configure("shop")  # its default sampler has no argument
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    with pytest.raises(SystemExit):
        configure("shop")
    assert capsys.readouterr().err == f"OTEL_TRACES_SAMPLER_ARG={argument}: must be a number from 0 to 1\n"


@pytest.mark.parametrize("sampler", [*SAMPLERS, "ALWAYS_ON"])
def test_the_samplers_of_the_specification_are_supported(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, sampler: str
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", sampler)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.5")
    configure("shop")
    assert messages(caplog) == []


def test_no_value_is_invalid_when_telemetry_is_disabled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "soon")
    configure("shop")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HEADERS", "s3cret"),
        ("HEADERS", 'a="s3cret"'),
        ("TRACES_HEADERS", "a=s3cret%0A"),
        ("ENDPOINT", "http://me:s3cret@127.0.0.1:4317"),
        ("ENDPOINT", "s3cret"),
        ("ENDPOINT", "http://::1:4317"),
        ("ENDPOINT", "http://127.0.0.1:0"),
        ("TRACES_ENDPOINT", "ftp://127.0.0.1:4317"),
        ("METRICS_ENDPOINT", "127.0.0.1:4317/v1"),
        ("ENDPOINT", "http://"),
    ],
)
def test_a_value_that_may_be_secret_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str
) -> None:
    monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{name}", value)
    with pytest.raises(SystemExit) as ended:
        configure("shop")
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"OTEL_EXPORTER_OTLP_{name}: must be ")
    assert "s3cret" not in line


def test_a_certificate_that_cannot_be_read_ends_the_start_if_spans_are_exported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere/ca.pem")
    configure("shop")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "https://127.0.0.1:9")
    with pytest.raises(SystemExit):
        configure("shop")
    line = "OTEL_EXPORTER_OTLP_CERTIFICATE=/nowhere/ca.pem: must be a file that can be read\n"
    assert capsys.readouterr().err == line


DEFINED = [
    *(f"OTEL_EXPORTER_OTLP_{signal}COMPRESSION={value}" for signal in ("", "TRACES_") for value in ("none", "GZip")),
    *(f"OTEL_EXPORTER_OTLP_{signal}TIMEOUT={value}" for signal in ("", "TRACES_") for value in ("0", "10000")),
    *(f"OTEL_EXPORTER_OTLP_INSECURE={value}" for value in ("TRUE", "False")),
    *(f"OTEL_METRICS_EXEMPLAR_FILTER={value}" for value in ("ALWAYS_ON", "always_off", "trace_based")),
    *(f"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE={value}" for value in ("Cumulative", "delta", "LowMemory")),
    "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION=BASE2_EXPONENTIAL_BUCKET_HISTOGRAM",
    "OTEL_EXPORTER_OTLP_HEADERS=authorization=Basic%20abc=,b=",
    "OTEL_RESOURCE_ATTRIBUTES=team=x,,zone=",
    "OTEL_PROPAGATORS=Baggage,tracecontext,baggage",
    "OTEL_PROPAGATORS=NONE",
    "OTEL_SDK_DISABLED=FALSE",
    "OTEL_SPAN_EVENT_COUNT_LIMIT=0",
    "OTEL_TRACES_SAMPLER= Always_Off ",
    *(f"OTEL_EXPORTER_OTLP_ENDPOINT={value}" for value in ("https://127.0.0.1", "dns:///localhost:9", "unix:/nowhere")),
    *(f"OTEL_EXPORTER_OTLP_ENDPOINT={value}" for value in ("HTTP://[::1]:9/path", "[::1]:9", "localhost:9")),
]


@pytest.mark.parametrize("variable", DEFINED)
def test_a_value_that_the_specification_defines_starts_the_process_without_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, variable: str
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", NOWHERE)
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "otlp")
    monkeypatch.setenv(*variable.split("=", 1))
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "2147483647")  # there is no collector to export to
    configure("shop").tracer_provider.shutdown()
    assert messages(caplog) == []


async def test_spans_for_a_collector_on_this_machine_do_not_go_to_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    received = asyncio.Event()

    async def export(_request: bytes, _context: object) -> bytes:
        received.set()
        return b""

    server = grpc.aio.server()
    handler = grpc.method_handlers_generic_handler(TRACES, {"Export": grpc.unary_unary_rpc_method_handler(export)})
    server.add_generic_rpc_handlers((handler,))
    async with start_server(server) as address:
        for variable in ("no_grpc_proxy", "no_proxy"):
            monkeypatch.delenv(variable, raising=False)
        for variable in ("grpc_proxy", "https_proxy", "http_proxy"):
            monkeypatch.setenv(variable, NOWHERE)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://{address}")
        telemetry = configure("shop")
        telemetry.tracer_provider.get_tracer("shop").start_span("sell").end()
        await telemetry.shutdown()
    assert received.is_set()


@pytest.mark.parametrize(
    ("target", "here"),
    [
        *((target, True) for target in ("127.0.0.1:1", "[::1]:1", "localhost:1", "a.LOCALHOST.:1", "0.0.0.0:1")),
        *((target, True) for target in ("[::ffff:127.0.0.1]:1", "dns:///localhost:1", "ipv4:127.0.0.2:1", "unix:/a")),
        *((target, False) for target in ("192.0.2.1:1", "collector:1", "localhost.example:1", "[2001:db8::1]:1")),
    ],
)
def test_only_what_is_on_this_machine_is_reached_without_the_proxy(target: str, *, here: bool) -> None:
    assert is_here(target) is here


@pytest.mark.parametrize(("variables", "length"), [({}, 2048), ({"OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "9"}, 9)])
def test_the_length_of_an_attribute_is_limited(
    monkeypatch: pytest.MonkeyPatch, variables: Mapping[str, str], length: int
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    span = configure("shop").tracer_provider.get_tracer("shop").start_span("sell", attributes={"path": "x" * 9000})
    assert isinstance(span, ReadableSpan)
    assert len(str((span.attributes or {})["path"])) == length
