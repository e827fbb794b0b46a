"""localmesh as a real process over real children: starting, dying, stopping, and what stays behind."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.localmesh.fakes.running import Running, fake
from tests.processes import left_of

linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux: prctl and /proc")
GONE = 10.0  # seconds that a process may take to be gone


def chain(*arguments: str) -> list[list[dict[str, object]]]:
    """An edge over two backends over a trace backend, all with the same arguments."""
    return [
        [fake("edge", *arguments)],
        [fake("left", *arguments), fake("right", *arguments)],
        [fake("traces", *arguments)],
    ]


def test_the_table_names_every_child_once_all_are_ready(tmp_path: Path) -> None:
    with Running(tmp_path, chain()) as mesh:
        mesh.is_up()
        assert [mesh.child(name).is_running() for name in ("traces", "left", "right", "edge")] == [True] * 4
        assert re.search(r"edge +127\.0\.0\.1:\d+ +\d+ +\d+ ms", mesh.text)
        assert sorted(mesh.journal) == ["edge serves", "left serves", "right serves", "traces serves"]


def test_children_are_direct_children_that_lead_their_own_sessions(tmp_path: Path) -> None:
    with Running(tmp_path, chain()) as mesh:
        mesh.is_up()
        pids = {mesh.child(name).pid for name in ("traces", "left", "right", "edge")}
        assert {child.pid for child in mesh.children()} == pids
        assert {os.getsid(pid) for pid in pids} == pids
        assert all("child.py" in child.cmdline()[1] for child in mesh.children())


@pytest.fixture
def hangups() -> Iterator[None]:
    """Lets children hear SIGHUP, though the tests may run under nohup, which they would inherit."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("hangups")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_a_signal_stops_callers_before_those_they_call(tmp_path: Path, number: signal.Signals) -> None:
    with Running(tmp_path, chain()) as mesh:
        mesh.is_up()
        mesh.send(number)
        assert mesh.end() == 0
        events = [line for line in mesh.journal if "stop" in line]
        assert events[:2] == ["edge stopping", "edge stopped"]
        assert sorted(events[2:6]) == ["left stopped", "left stopping", "right stopped", "right stopping"]
        assert events[6:] == ["traces stopping", "traces stopped"]
        assert re.search(r"edge ended well after \d+\.\d\d s", mesh.text)
        assert "Traceback" not in mesh.text


def test_the_terminals_interrupt_reaches_no_child(tmp_path: Path) -> None:
    with Running(tmp_path, chain()) as mesh:
        mesh.is_up()
        os.killpg(mesh.process.pid, signal.SIGINT)
        assert mesh.end() == 0
        assert not [line for line in mesh.journal if "SIGINT" in line]


def test_a_second_interrupt_skips_the_waiting(tmp_path: Path) -> None:
    with Running(tmp_path, chain("--stop-seconds", "600")) as mesh:
        mesh.is_up()
        mesh.send(signal.SIGINT)
        mesh.until("stopping")
        mesh.send(signal.SIGINT)
        assert mesh.end() == 0
        hurried = [line.split()[0] for line in mesh.journal if "hurried" in line]
        assert (hurried[0], sorted(hurried[1:3]), hurried[3]) == ("edge", ["left", "right"], "traces")


def test_a_repeated_sigterm_does_not_hurry_the_stop(tmp_path: Path) -> None:
    """GNU make passes SIGTERM on to a child that a signal to the group has reached already."""
    with Running(tmp_path, [[fake("edge", "--stop-seconds", "0.5")]]) as mesh:
        mesh.is_up()
        mesh.send(signal.SIGTERM)
        mesh.until("stopping")
        mesh.send(signal.SIGTERM)
        assert mesh.end() == 0
        assert mesh.journal == ["edge serves", "edge stopping", "edge stopped"]


def test_a_third_interrupt_kills(tmp_path: Path) -> None:
    with Running(tmp_path, [[fake("edge", "--deaf")]], {"stop": 600, "hurried_stop": 600}) as mesh:
        mesh.is_up()
        mesh.send(signal.SIGINT)
        mesh.until("stopping")
        mesh.send(signal.SIGINT)
        mesh.until("hurrying")
        mesh.send(signal.SIGINT)
        assert mesh.end() == 1
        assert "edge did not end" in mesh.text


def test_a_child_that_does_not_stop_in_time_is_killed_and_the_others_still_stop_in_order(tmp_path: Path) -> None:
    stages = [[fake("edge", "--deaf")], [fake("left")]]
    with Running(tmp_path, stages, {"stop": 0.2}) as mesh:
        mesh.is_up()
        edge = mesh.child("edge")
        mesh.send(signal.SIGTERM)
        assert mesh.end() == 1
        assert not edge.is_running()
        assert re.search(r"edge did not end in \d\.\d\d s and was killed", mesh.text)
        assert mesh.journal[-2:] == ["left stopping", "left stopped"]


def test_a_frozen_child_stops_like_any_other(tmp_path: Path) -> None:
    with Running(tmp_path, [[fake("edge")]]) as mesh:
        mesh.is_up()
        mesh.child("edge").suspend()
        mesh.send(signal.SIGINT)
        assert mesh.end() == 0
        assert mesh.journal[-1] == "edge stopped"


def test_a_child_that_dies_is_named_with_its_last_lines_and_restarted_while_others_serve(tmp_path: Path) -> None:
    with Running(tmp_path, chain()) as mesh:
        mesh.is_up()
        others = {mesh.child(name) for name in ("edge", "right", "traces")}
        killed = mesh.child("left")
        killed.kill()
        line = mesh.until("left")
        assert f"left (pid {killed.pid}) was ended by SIGKILL: starting it again" in line
        assert "| left serves" in mesh.until("left")
        ready = mesh.until("left is ready again")
        assert all(other.is_running() for other in others)
        assert f"pid {killed.pid}," not in ready
        mesh.send(signal.SIGINT)
        assert mesh.end() == 0
        assert mesh.journal.count("left stopped") == 1


def test_a_child_is_restarted_as_often_as_it_dies(tmp_path: Path) -> None:
    with Running(tmp_path, [[fake("edge")]], {"first_restart": 0.01, "last_restart": 0.02}) as mesh:
        mesh.is_up()
        mesh.child("edge").kill()
        for _ in range(5):
            pid = int(re.findall(r"pid (\d+)", mesh.until("ready again"))[0])
            psutil.Process(pid).kill()
        mesh.until("ready again")
        assert mesh.text.count("| edge serves") == 1  # the last lines are shown once for deaths in a row


def test_an_invalid_setting_of_a_child_ends_the_start_at_once_with_status_2(tmp_path: Path) -> None:
    stages = [[fake("edge", "--refuse", "EDGE_LISTEN: no", "--exit-status", "2")], [fake("left")]]
    with Running(tmp_path, stages, {"first_restart": 600}) as mesh:
        assert mesh.end() == 2
        assert "edge cannot start\n  | EDGE_LISTEN: no\nstopping" in mesh.text


def test_a_mesh_with_a_child_that_refuses_to_run_stops_and_shows_why(tmp_path: Path) -> None:
    stages = [[fake("edge", "--refuse", "EDGE_LISTEN is not an address")], [fake("left")]]
    with Running(tmp_path, stages, {"first_restart": 0.01}) as mesh:
        assert mesh.end() == 1
        assert "edge ended with exit status 1 3 times before it was ready" in mesh.text
        assert "  | EDGE_LISTEN is not an address" in mesh.text
        assert "WELCOME" not in mesh.text
        assert "Traceback" not in mesh.text


def test_a_mesh_that_is_not_ready_in_time_says_which_child_and_stops(tmp_path: Path) -> None:
    stages = [[fake("edge", "--status", "503 Service Unavailable")], [fake("left")]]
    with Running(tmp_path, stages, {"start_notice": 0.2, "start": 3.0}) as mesh:
        assert mesh.end() == 1
        assert re.search(r"^still waiting for (left, )?edge$", mesh.text, re.MULTILINE)
        assert "waited for no longer: edge\n  | edge serves" in mesh.text


def test_an_interrupt_during_the_start_stops_what_has_begun(tmp_path: Path) -> None:
    stages = [[fake("edge", "--status", "503 Service Unavailable")], [fake("left")]]
    with Running(tmp_path, stages, {"start_notice": 0.5}) as mesh:
        mesh.until("still waiting")
        mesh.send(signal.SIGINT)
        assert mesh.end() == 0
        assert "edge ended well" in mesh.text
        assert "Traceback" not in mesh.text


@linux
def test_children_of_a_killed_localmesh_end_by_themselves(tmp_path: Path) -> None:
    with Running(tmp_path, chain()) as mesh:
        mesh.is_up()
        children = mesh.children()
        mesh.send(signal.SIGKILL)
        assert (len(children), left_of(children, GONE)) == (4, [])
        stopping = sorted(line for line in mesh.journal if "stopping" in line)
        assert stopping == ["edge stopping", "left stopping", "right stopping", "traces stopping"]


@linux
def test_the_next_mesh_waits_for_the_children_of_a_killed_one(tmp_path: Path) -> None:
    stages = [[fake("edge", "--deaf")]]
    with Running(tmp_path, stages) as first:
        first.is_up()
        orphan = first.child("edge")
        first.send(signal.SIGKILL)
        first.process.wait()
        with Running(tmp_path, stages) as second:
            assert f"pid {orphan.pid} " in second.until("waiting for them to end")
            orphan.kill()
            second.is_up()
            assert second.child("edge").pid != orphan.pid


def test_a_second_mesh_on_one_state_directory_is_refused(tmp_path: Path) -> None:
    with Running(tmp_path, [[fake("edge")]]) as first:
        first.is_up()
        with Running(tmp_path, [[fake("edge")]]) as second:
            assert second.end() == 1
        assert "a mesh already runs on" in second.text
        if sys.platform == "linux":
            assert f"(pid {first.process.pid} (" in second.text
        assert first.child("edge").is_running()


def test_a_mesh_whose_reader_is_gone_stops_as_usual(tmp_path: Path) -> None:
    with Running(tmp_path, chain()) as mesh:
        mesh.is_up()
        assert mesh.process.stdout
        mesh.process.stdout.close()
        mesh.send(signal.SIGTERM)
        assert mesh.process.wait() == 0
        assert mesh.journal[-1] == "traces stopped"


def localmesh(state_dir: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "localmesh", *arguments],
        env=os.environ | {"STATE_DIR": str(state_dir)},
        check=False,
        capture_output=True,
        text=True,
    )


def test_reset_deletes_the_state_and_nothing_while_a_mesh_runs_on_it(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with Running(tmp_path, [[fake("edge")]]) as mesh:
        mesh.is_up()
        refused = localmesh(state, "reset")
        assert refused.returncode == 1
        assert "a mesh already runs on" in refused.stdout
        mesh.send(signal.SIGINT)
        assert mesh.end() == 0
    assert (state / "logs" / "edge.log").read_text() == "edge serves\n"
    done = localmesh(state, "reset")
    assert (done.returncode, state.exists()) == (0, False)
    assert localmesh(state, "reset").returncode == 0


def test_reset_leaves_a_directory_alone_that_is_no_state(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    refused = localmesh(tmp_path, "reset")
    assert refused.returncode == 1
    assert "is not the state of a mesh" in refused.stdout
    assert (tmp_path / "thesis.tex").exists()


def test_a_directory_with_other_files_does_not_become_a_state(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    refused = localmesh(tmp_path)
    assert refused.returncode == 1
    assert "holds other files" in refused.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_state_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refused = localmesh(tmp_path / "file" / "state")
    assert refused.returncode == 1
    assert refused.stdout == f"STATE_DIR={tmp_path}/file/state cannot be used: Not a directory\n"
    assert refused.stderr == ""
