"""Every program of the mesh as a process: invalid settings, ports in use, and signals."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
from typing import TYPE_CHECKING

import pytest

from meshkit.command_line import rows
from tests.e2e.local_mesh import PORTS, free_ports
from tests.repository import SERVICES
from tests.service_process import PROGRAMS, Program, ServiceProcess, process, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

pytestmark = pytest.mark.timeout(60)  # the tests start processes

each_program = pytest.mark.parametrize("program", PROGRAMS.values(), ids=str)
each_address = pytest.mark.parametrize(
    ("program", "setting"),
    [pytest.param(each, name, id=each.variable(name)) for each in PROGRAMS.values() for name in each.addresses],
)
LISTENS = " on 127.0.0.1:"
"""A part of the line that a program prints or logs as soon as it listens."""


@pytest.fixture
def used_address() -> Iterator[str]:
    """An address that this process listens on."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield f"127.0.0.1:{other.getsockname()[1]}"


@each_program
async def test_each_invalid_setting_is_one_line_that_names_it_and_the_exit_status_is_2(program: Program) -> None:
    wrong = dict.fromkeys(program.addresses, "nonsense")
    async with running(program.name, **wrong) as service:
        assert await service.exit_status() == 2
    assert [line.partition(": ")[0] for line in service.lines] == [program.variable(name) for name in wrong]
    assert service.printed == []


@each_address
async def test_a_port_in_use_is_one_line_that_names_the_address_and_the_exit_status_is_1(
    program: Program, setting: str, used_address: str
) -> None:
    async with running(program.name, **{setting: used_address}) as service:
        assert await service.exit_status() == 1
    *before, line = service.lines  # gRPC's core logs in its own line why it cannot bind
    assert line.startswith(f"cannot listen on {used_address}: ")
    assert not [other for other in before if not re.match(r'\{"time"|E\d{4} .* add_port', other)]
    assert service.printed == []


@each_program
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
async def test_a_signal_stops_it_with_exit_status_0(program: Program, number: signal.Signals) -> None:
    async with running(program.name) as service:
        await service.line(LISTENS)
        service.signal(number)
        assert await service.exit_status() == 0
    assert not [line for line in service.lines if "Traceback" in line]


@pytest.mark.parametrize("program", [program for program in PROGRAMS.values() if program.drains], ids=str)
async def test_a_signal_drains_it_and_a_second_one_skips_the_drain(program: Program) -> None:
    async with running(program.name, drain_seconds="600") as service:
        await service.line(LISTENS)
        service.signal(signal.SIGTERM)
        await service.log_record("draining")
        service.signal(signal.SIGTERM)
        assert await service.exit_status() == 0
    assert service.records[-1]["message"] == "stopped"


@each_program
async def test_help_lists_every_setting_and_starts_nothing(program: Program) -> None:
    wrong = dict.fromkeys(program.addresses, "nonsense")
    environment = {**os.environ, **program.environment(wrong)}
    async with process("-m", program.name, "--help", environment=environment) as service:
        assert await service.exit_status() == 0
    assert service.lines == []
    help_text = "".join(service.printed)
    assert help_text.startswith(f"usage: python -m {program} [--help]\n\nSettings from {program.prefix}* variables.")
    for row in rows(program.settings):
        default = f"; default {row.default}" if row.default else ""
        assert f"\n  {row.variable}  ({row.type}{default})\n      {row.meaning[:40]}" in help_text


@each_program
async def test_an_unknown_argument_is_one_line_and_the_exit_status_is_2(program: Program) -> None:
    async with process("-m", program.name, "--port=1", environment=os.environ) as service:
        assert await service.exit_status() == 2
    (line,) = service.lines
    assert line.startswith(f"{program}: unknown argument --port=1; ")
    assert service.printed == []


@each_program
async def test_a_misspelt_variable_is_a_warning_with_the_nearest_name(program: Program) -> None:
    wrong, right = program.variable("listn"), program.variable(next(iter(program.addresses)))
    async with running(program.name, {wrong: "s3cret", program.variable("port"): "1"}) as service:
        await service.line(LISTENS)
        warning = await service.line(f"{wrong} is not a setting and is ignored; did you mean {right}?")
    assert "s3cret" not in warning
    assert not [line for line in service.lines if program.variable("port") in line]


def localmesh(state: Path, **variables: str) -> AbstractAsyncContextManager[ServiceProcess]:
    """`make up` on free ports, unless `variables` names others."""
    free = {variable: str(port) for variable, port in free_ports().items()}
    environment = {**os.environ, "JAEGER_BIN": "", "STATE_DIR": str(state), **free, **variables}
    return process("-m", "localmesh", environment=environment)


@pytest.mark.parametrize("variable", PORTS)
async def test_an_invalid_port_of_localmesh_is_one_line_that_names_it_and_the_exit_status_is_2(
    variable: str, tmp_path: Path
) -> None:
    async with localmesh(tmp_path, **{variable: "http"}) as mesh:
        assert await mesh.exit_status() == 2
    assert [line.partition(": ")[0] for line in mesh.printed] == [f"{variable}=http"]
    assert mesh.lines == []


async def test_leaving_out_an_unknown_service_is_one_line_with_the_known_services(
    tmp_path: Path,
) -> None:
    async with localmesh(tmp_path, WITHOUT="nobody") as mesh:
        assert await mesh.exit_status() == 2
    assert mesh.printed == [f"WITHOUT=nobody: no such service: nobody; choose from {', '.join(SERVICES)}\n"]
    assert mesh.lines == []


@pytest.mark.parametrize("variable", PORTS)
async def test_a_port_of_localmesh_in_use_is_named_with_the_process_and_a_free_port(
    variable: str, used_address: str, tmp_path: Path
) -> None:
    port = used_address.rpartition(":")[2]
    async with localmesh(tmp_path, **{variable: port}) as mesh:
        assert await mesh.exit_status() == 1
    problem, advice = mesh.printed
    assert problem.startswith(f"{variable}: port {port} is in use")
    if sys.platform == "linux":
        assert f"in use by pid {os.getpid()} (" in problem
    assert re.fullmatch(rf"these are free: {variable}=\d+ make up\n", advice)
    assert mesh.lines == []


async def test_an_invalid_setting_of_a_service_stops_localmesh_at_once(tmp_path: Path) -> None:
    program = PROGRAMS[SERVICES[0]]
    async with localmesh(tmp_path, **{program.variable("log_level"): "LOUD"}) as mesh:
        assert await mesh.exit_status() == 2
    text = "".join(mesh.printed)
    assert f"{program} cannot start\n  | {program.variable('log_level')}: Input should be 'DEBUG'" in text
    assert "restarting it" not in text


async def test_localmesh_prints_the_warnings_of_a_starting_service(tmp_path: Path) -> None:
    program = PROGRAMS[SERVICES[0]]
    async with localmesh(tmp_path, **{program.variable("log_levl"): "DEBUG"}) as mesh:
        await mesh.line(f"did you mean {program.variable('log_level')}?")
