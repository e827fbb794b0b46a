"""What every program of the mesh does as a process: wrong settings, taken ports, and how signals end it."""

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

pytestmark = pytest.mark.timeout(60)  # they start processes

each_program = pytest.mark.parametrize("program", PROGRAMS.values(), ids=str)
each_address = pytest.mark.parametrize(
    ("program", "setting"),
    [pytest.param(each, name, id=each.variable(name)) for each in PROGRAMS.values() for name in each.addresses],
)
LISTENS = " on 127.0.0.1:"
"""What a program prints or logs as soon as it listens."""


@pytest.fixture
def taken() -> Iterator[str]:
    """An address where somebody else listens."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield f"127.0.0.1:{other.getsockname()[1]}"


@each_program
async def test_each_wrong_setting_is_one_line_that_names_it_and_the_status_is_2(program: Program) -> None:
    wrong = dict.fromkeys(program.addresses, "nonsense")
    async with running(program.name, **wrong) as started:
        assert await started.ended() == 2
    assert [line.partition(": ")[0] for line in started.lines] == [program.variable(name) for name in wrong]
    assert started.printed == []


@each_address
async def test_a_taken_port_is_one_line_that_names_the_address_and_the_status_is_1(
    program: Program, setting: str, taken: str
) -> None:
    async with running(program.name, **{setting: taken}) as started:
        assert await started.ended() == 1
    *before, line = started.lines  # gRPC's core logs why it cannot bind, in a line of its own
    assert line.startswith(f"cannot listen on {taken}: ")
    assert not [other for other in before if not re.match(r'\{"time"|E\d{4} .* add_port', other)]
    assert started.printed == []


@each_program
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
async def test_a_signal_ends_it_with_status_0(program: Program, number: signal.Signals) -> None:
    async with running(program.name) as started:
        await started.line(LISTENS)
        started.signal(number)
        assert await started.ended() == 0
    assert not [line for line in started.lines if "Traceback" in line]


@pytest.mark.parametrize("program", [program for program in PROGRAMS.values() if program.drains], ids=str)
async def test_a_signal_drains_it_and_a_second_one_skips_the_waiting(program: Program) -> None:
    async with running(program.name, drain_seconds="600") as started:
        await started.line(LISTENS)
        started.signal(signal.SIGTERM)
        await started.logged("draining")
        started.signal(signal.SIGTERM)
        assert await started.ended() == 0
    assert started.records[-1]["message"] == "stopped"


@each_program
async def test_help_lists_every_setting_and_starts_nothing(program: Program) -> None:
    wrong = dict.fromkeys(program.addresses, "nonsense")
    environment = {**os.environ, **program.environment(wrong)}
    async with process("-m", program.name, "--help", environment=environment) as started:
        assert await started.ended() == 0
    assert started.lines == []
    help_text = "".join(started.printed)
    assert help_text.startswith(f"usage: python -m {program} [--help]\n\nSettings from {program.prefix}* variables.")
    for row in rows(program.settings):
        default = f"; default {row.default}" if row.default else ""
        assert f"\n  {row.variable}  ({row.type}{default})\n      {row.meaning[:40]}" in help_text


@each_program
async def test_an_unknown_argument_is_one_line_and_the_status_is_2(program: Program) -> None:
    async with process("-m", program.name, "--port=1", environment=os.environ) as started:
        assert await started.ended() == 2
    (line,) = started.lines
    assert line.startswith(f"{program}: unknown argument --port=1; ")
    assert started.printed == []


@each_program
async def test_a_misspelt_variable_is_a_warning_with_the_nearest_name(program: Program) -> None:
    wrong, right = program.variable("listn"), program.variable(next(iter(program.addresses)))
    async with running(program.name, {wrong: "s3cret", program.variable("port"): "1"}) as started:
        await started.line(LISTENS)
        warning = await started.line(f"{wrong} is not a setting and is ignored; did you mean {right}?")
    assert "s3cret" not in warning
    assert not [line for line in started.lines if program.variable("port") in line]


def localmesh(state: Path, **variables: str) -> AbstractAsyncContextManager[ServiceProcess]:
    """`make up` on free ports, unless the variables say otherwise."""
    free = {variable: str(port) for variable, port in free_ports().items()}
    environment = {**os.environ, "JAEGER_BIN": "", "STATE_DIR": str(state), **free, **variables}
    return process("-m", "localmesh", environment=environment)


@pytest.mark.parametrize("variable", PORTS)
async def test_a_wrong_port_of_localmesh_is_one_line_that_names_it_and_the_status_is_2(
    variable: str, tmp_path: Path
) -> None:
    async with localmesh(tmp_path, **{variable: "http"}) as started:
        assert await started.ended() == 2
    assert [line.partition(": ")[0] for line in started.printed] == [f"{variable}=http"]
    assert started.lines == []


async def test_an_unknown_service_to_leave_out_is_one_line_with_the_known_ones_and_the_status_is_2(
    tmp_path: Path,
) -> None:
    async with localmesh(tmp_path, WITHOUT="nobody") as started:
        assert await started.ended() == 2
    assert started.printed == [f"WITHOUT=nobody: no such service: nobody; there are {', '.join(SERVICES)}\n"]
    assert started.lines == []


@pytest.mark.parametrize("variable", PORTS)
async def test_a_taken_port_of_localmesh_is_named_with_its_holder_and_the_variable_that_moves_it(
    variable: str, taken: str, tmp_path: Path
) -> None:
    port = taken.rpartition(":")[2]
    async with localmesh(tmp_path, **{variable: port}) as started:
        assert await started.ended() == 1
    refusal, advice = started.printed
    assert refusal.startswith(f"{variable}: port {port} is taken")
    if sys.platform == "linux":
        assert f"taken by pid {os.getpid()} (" in refusal
    assert re.fullmatch(rf"free ones: {variable}=\d+ make up\n", advice)
    assert started.lines == []


async def test_a_wrong_setting_of_a_service_ends_the_start_of_localmesh_at_once(tmp_path: Path) -> None:
    program = PROGRAMS[SERVICES[0]]
    async with localmesh(tmp_path, **{program.variable("log_level"): "LOUD"}) as started:
        assert await started.ended() == 2
    text = "".join(started.printed)
    assert f"{program} cannot start\n  | {program.variable('log_level')}: Input should be 'DEBUG'" in text
    assert "starting it again" not in text


async def test_localmesh_shows_what_a_service_warns_of_at_its_start(tmp_path: Path) -> None:
    program = PROGRAMS[SERVICES[0]]
    async with localmesh(tmp_path, **{program.variable("log_levl"): "DEBUG"}) as started:
        await started.line(f"did you mean {program.variable('log_level')}?")
