"""Every program of the mesh as a process: invalid settings, ports in use, and signals."""

from __future__ import annotations

import gc
import os
import re
import runpy
import signal
import socket
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from localmesh.gateways.known import GATEWAYS
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
each_signal = pytest.mark.parametrize(
    ("program", "number"),
    [
        pytest.param(each, number, id=f"{each}-{number.name}")
        for each in PROGRAMS.values()
        for number in (signal.SIGTERM, signal.SIGINT)
        if number is signal.SIGINT or not each.drains  # a SIGTERM drains the others, below
    ],
)
LISTENS = " on 127.0.0.1:"
"""A part of the line that a program prints or logs as soon as it listens."""


@pytest.fixture
def used_address() -> Iterator[str]:
    """An address that this process listens on."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield f"127.0.0.1:{other.getsockname()[1]}"


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


@each_signal
async def test_a_signal_stops_it_with_exit_status_0_and_a_misspelt_variable_is_a_warning_with_the_nearest_name(
    program: Program, number: signal.Signals
) -> None:
    wrong, right = program.variable("listn"), program.variable(next(iter(program.addresses)))
    at_once = {"drain_seconds": "0"} if program.drains else {}
    async with running(program.name, {wrong: "s3cret", program.variable("port"): "1"}, **at_once) as service:
        await service.line(LISTENS)
        warning = await service.line(f"{wrong} is not a setting and is ignored; did you mean {right}?")
        service.signal(number)
        assert await service.exit_status() == 0
    assert "s3cret" not in warning
    assert not [line for line in service.lines if "Traceback" in line or program.variable("port") in line]


@pytest.mark.parametrize("program", [program for program in PROGRAMS.values() if program.drains], ids=str)
async def test_a_signal_drains_it_and_a_second_one_skips_the_drain(program: Program) -> None:
    async with running(program.name, drain_seconds="600") as service:
        await service.line(LISTENS)
        service.signal(signal.SIGTERM)
        await service.log_record("draining")
        service.signal(signal.SIGTERM)
        assert await service.exit_status() == 0
    assert service.records[-1]["message"] == "stopped"


@pytest.mark.unit
@each_program
def test_each_invalid_setting_is_one_line_that_names_it_and_the_exit_status_is_2(
    program: Program, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    variables = [program.variable(name) for name in program.addresses]
    for variable in variables:
        monkeypatch.setenv(variable, "nonsense")
    assert status_in_this_process(program, [], monkeypatch) == 2
    printed = capsys.readouterr()
    assert [line.partition(": ")[0] for line in printed.err.splitlines()] == variables
    assert printed.out == ""


@pytest.mark.unit
@each_program
def test_help_lists_every_setting_and_starts_nothing(
    program: Program, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in program.addresses:
        monkeypatch.setenv(program.variable(name), "nonsense")
    assert status_in_this_process(program, ["--help"], monkeypatch) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert printed.out.startswith(f"usage: python -m {program} [--help]\n\nSettings from {program.prefix}* variables.")
    for row in rows(program.settings):
        default = f"; default {row.default}" if row.default else ""
        assert f"\n  {row.variable}  ({row.type}{default})\n      {row.meaning[:40]}" in printed.out


@pytest.mark.unit
@each_program
def test_an_unknown_argument_is_one_line_and_the_exit_status_is_2(
    program: Program, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status_in_this_process(program, ["--port=1"], monkeypatch) == 2
    printed = capsys.readouterr()
    (line,) = printed.err.splitlines()
    assert line.startswith(f"{program}: unknown argument --port=1; ")
    assert printed.out == ""


def status_in_this_process(program: Program, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> object:
    """Runs a program like `python -m` in this process, where it must exit; returns its exit status."""
    monkeypatch.setattr(sys, "argv", [program.name, *arguments])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(program.name, run_name="__main__")
    gc.enable()  # it exited before it did
    return ended.value.code


def localmesh(state: Path, **variables: str) -> AbstractAsyncContextManager[ServiceProcess]:
    """`make up` on free ports, unless `variables` names others."""
    free = {variable: str(port) for variable, port in free_ports().items()}
    environment = {**os.environ, "JAEGER_BIN": "", "STATE_DIR": str(state), **free, **variables}
    return process("-m", "localmesh", environment=environment)


async def test_each_invalid_port_of_localmesh_is_one_line_that_names_it_and_the_exit_status_is_2(
    tmp_path: Path,
) -> None:
    async with localmesh(tmp_path, **dict.fromkeys(PORTS, "http")) as mesh:
        assert await mesh.exit_status() == 2
    assert sorted(line.partition(": ")[0] for line in mesh.printed) == sorted(f"{variable}=http" for variable in PORTS)
    assert mesh.lines == []


async def test_leaving_out_an_unknown_service_is_one_line_with_the_known_services(
    tmp_path: Path,
) -> None:
    async with localmesh(tmp_path, WITHOUT="nobody") as mesh:
        assert await mesh.exit_status() == 2
    assert mesh.printed == [f"WITHOUT=nobody: no such service: nobody; choose from {', '.join(SERVICES)}\n"]
    assert mesh.lines == []


async def test_each_port_of_localmesh_in_use_is_named_with_the_process_and_a_free_port(tmp_path: Path) -> None:
    with ExitStack() as stack:
        used = {
            variable: stack.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1] for variable in PORTS
        }
        ports = {variable: str(port) for variable, port in used.items()}
        async with localmesh(tmp_path, GATEWAY=next(iter(GATEWAYS)), **ports) as mesh:
            assert await mesh.exit_status() == 1
    *problems, advice = mesh.printed
    assert len(problems) == len(PORTS)
    for variable, port in used.items():
        (problem,) = (line for line in problems if line.startswith(f"{variable}: port {port} is in use"))
        if sys.platform == "linux":
            assert f"in use by pid {os.getpid()} (" in problem
        assert re.search(rf"^these are free: .*{variable}=\d+ .*make up\n$", advice)
    assert mesh.lines == []


async def test_an_invalid_setting_of_a_service_stops_localmesh_at_once(tmp_path: Path) -> None:
    program, others = PROGRAMS[SERVICES[0]], ",".join(SERVICES[1:])
    async with localmesh(tmp_path, WITHOUT=others, **{program.variable("log_level"): "LOUD"}) as mesh:
        assert await mesh.exit_status() == 2
    text = "".join(mesh.printed)
    assert f"{program} cannot start\n  | {program.variable('log_level')}: Input should be 'DEBUG'" in text
    assert "restarting it" not in text


async def test_localmesh_prints_the_warnings_of_a_starting_service(tmp_path: Path) -> None:
    program, others = PROGRAMS[SERVICES[0]], ",".join(SERVICES[1:])
    async with localmesh(tmp_path, WITHOUT=others, **{program.variable("log_levl"): "DEBUG"}) as mesh:
        await mesh.line(f"did you mean {program.variable('log_level')}?")
