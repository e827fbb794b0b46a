"""localmesh as a real process with real children: starts, failures, stops, and processes that are left."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.localmesh.fakes.running import MeshProcess, fake
from tests.processes import left_of

pytestmark = pytest.mark.timeout(60)  # the tests start processes

linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux: prctl and /proc")
EXIT_LIMIT = 10.0  # seconds that a process may take to exit


def chain(*arguments: str) -> list[list[dict[str, object]]]:
    """An edge, two backends and a trace backend, all with the same arguments."""
    return [
        [fake("edge", *arguments)],
        [fake("left", *arguments), fake("right", *arguments)],
        [fake("traces", *arguments)],
    ]


def test_the_table_names_every_child_once_all_are_ready(tmp_path: Path) -> None:
    with MeshProcess(tmp_path, chain()) as mesh:
        mesh.wait_until_ready()
        assert [mesh.child(name).is_running() for name in ("traces", "left", "right", "edge")] == [True] * 4
        assert re.search(r"edge +127\.0\.0\.1:\d+ +\d+ +\d+ ms", mesh.text)
        assert sorted(mesh.journal) == ["edge serves", "left serves", "right serves", "traces serves"]


def test_children_are_direct_children_that_lead_their_own_sessions(tmp_path: Path) -> None:
    with MeshProcess(tmp_path, chain()) as mesh:
        mesh.wait_until_ready()
        pids = {mesh.child(name).pid for name in ("traces", "left", "right", "edge")}
        assert {child.pid for child in mesh.children()} == pids
        assert {os.getsid(pid) for pid in pids} == pids
        assert all("child.py" in child.cmdline()[1] for child in mesh.children())


@pytest.fixture
def sighup() -> Iterator[None]:
    """Resets SIGHUP, because children inherit that it is ignored if the tests run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("sighup")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_a_signal_stops_callers_before_the_services_that_they_call(tmp_path: Path, number: signal.Signals) -> None:
    with MeshProcess(tmp_path, chain()) as mesh:
        mesh.wait_until_ready()
        mesh.send(number)
        assert mesh.wait() == 0
        events = [line for line in mesh.journal if "stop" in line]
        assert events[:2] == ["edge stopping", "edge stopped"]
        assert sorted(events[2:6]) == ["left stopped", "left stopping", "right stopped", "right stopping"]
        assert events[6:] == ["traces stopping", "traces stopped"]
        assert re.search(r"edge exited with status 0 after \d+\.\d\d s", mesh.text)
        assert "Traceback" not in mesh.text


def test_an_interrupt_of_the_terminal_reaches_no_child(tmp_path: Path) -> None:
    with MeshProcess(tmp_path, chain()) as mesh:
        mesh.wait_until_ready()
        os.killpg(mesh.process.pid, signal.SIGINT)
        assert mesh.wait() == 0
        assert not [line for line in mesh.journal if "SIGINT" in line]


def test_a_second_interrupt_skips_the_drain(tmp_path: Path) -> None:
    with MeshProcess(tmp_path, chain("--stop-seconds", "600")) as mesh:
        mesh.wait_until_ready()
        mesh.send(signal.SIGINT)
        mesh.read_until("stopping")
        mesh.send(signal.SIGINT)
        assert mesh.wait() == 0
        hurried = [line.split()[0] for line in mesh.journal if "hurried" in line]
        assert (hurried[0], sorted(hurried[1:3]), hurried[3]) == ("edge", ["left", "right"], "traces")


def test_a_second_sigterm_does_not_skip_the_drain(tmp_path: Path) -> None:
    """GNU make forwards SIGTERM even to a child that already got it with its process group."""
    with MeshProcess(tmp_path, [[fake("edge", "--stop-seconds", "0.5")]]) as mesh:
        mesh.wait_until_ready()
        mesh.send(signal.SIGTERM)
        mesh.read_until("stopping")
        mesh.send(signal.SIGTERM)
        assert mesh.wait() == 0
        assert mesh.journal == ["edge serves", "edge stopping", "edge stopped"]


def test_a_third_interrupt_kills_the_children(tmp_path: Path) -> None:
    with MeshProcess(tmp_path, [[fake("edge", "--deaf")]], {"stop": 600, "hurried_stop": 600}) as mesh:
        mesh.wait_until_ready()
        mesh.send(signal.SIGINT)
        mesh.read_until("stopping")
        mesh.send(signal.SIGINT)
        mesh.read_until("skipping the drain")
        mesh.send(signal.SIGINT)
        assert mesh.wait() == 1
        assert "edge did not exit" in mesh.text


def test_a_child_that_does_not_stop_in_time_is_killed_and_the_others_still_stop_in_order(tmp_path: Path) -> None:
    stages = [[fake("edge", "--deaf")], [fake("left")]]
    with MeshProcess(tmp_path, stages, {"stop": 0.2}) as mesh:
        mesh.wait_until_ready()
        edge = mesh.child("edge")
        mesh.send(signal.SIGTERM)
        assert mesh.wait() == 1
        assert not edge.is_running()
        assert re.search(r"edge did not exit within \d\.\d\d s and was killed", mesh.text)
        assert mesh.journal[-2:] == ["left stopping", "left stopped"]


def test_a_stopped_child_is_continued_and_exits_normally(tmp_path: Path) -> None:
    with MeshProcess(tmp_path, [[fake("edge")]]) as mesh:
        mesh.wait_until_ready()
        mesh.child("edge").suspend()
        mesh.send(signal.SIGINT)
        assert mesh.wait() == 0
        assert mesh.journal[-1] == "edge stopped"


def test_a_killed_child_is_reported_with_its_last_lines_and_restarted_while_others_serve(tmp_path: Path) -> None:
    with MeshProcess(tmp_path, chain()) as mesh:
        mesh.wait_until_ready()
        others = {mesh.child(name) for name in ("edge", "right", "traces")}
        killed = mesh.child("left")
        killed.kill()
        line = mesh.read_until("left")
        assert f"left (pid {killed.pid}) was killed by SIGKILL: restarting it" in line
        assert "| left serves" in mesh.read_until("left")
        ready = mesh.read_until("left is ready again")
        assert all(other.is_running() for other in others)
        assert f"pid {killed.pid}," not in ready
        mesh.send(signal.SIGINT)
        assert mesh.wait() == 0
        assert mesh.journal.count("left stopped") == 1


def test_a_child_is_restarted_each_time_it_is_killed(tmp_path: Path) -> None:
    with MeshProcess(tmp_path, [[fake("edge")]], {"first_restart": 0.01, "last_restart": 0.02}) as mesh:
        mesh.wait_until_ready()
        mesh.child("edge").kill()
        for _ in range(5):
            pid = int(re.findall(r"pid (\d+)", mesh.read_until("ready again"))[0])
            psutil.Process(pid).kill()
        mesh.read_until("ready again")
        assert mesh.text.count("| edge serves") == 1  # the last lines are shown only for the first of several exits


def test_an_invalid_setting_of_a_child_stops_the_mesh_at_once_with_status_2(tmp_path: Path) -> None:
    stages = [[fake("edge", "--refuse", "EDGE_LISTEN: no", "--exit-status", "2")], [fake("left")]]
    with MeshProcess(tmp_path, stages, {"first_restart": 600}) as mesh:
        assert mesh.wait() == 2
        assert mesh.text.endswith("edge cannot start\n  | EDGE_LISTEN: no")


def test_a_mesh_whose_child_cannot_start_stops_and_shows_why(tmp_path: Path) -> None:
    stages = [[fake("edge", "--refuse", "EDGE_LISTEN is not an address")], [fake("left")]]
    with MeshProcess(tmp_path, stages, {"first_restart": 0.01}) as mesh:
        assert mesh.wait() == 1
        assert "edge exited with status 1 3 times before it was ready" in mesh.text
        assert "  | EDGE_LISTEN is not an address" in mesh.text
        assert "WELCOME" not in mesh.text
        assert "Traceback" not in mesh.text


def test_a_mesh_that_is_not_ready_in_time_names_the_child_and_stops(tmp_path: Path) -> None:
    stages = [[fake("edge", "--status", "503 Service Unavailable")], [fake("left")]]
    with MeshProcess(tmp_path, stages, {"start_notice": 0.2, "start": 3.0}) as mesh:
        assert mesh.wait() == 1
        assert re.search(r"^still waiting for the health checks of (left, )?edge$", mesh.text, re.MULTILINE)
        assert "not ready in time: edge\n  | edge serves" in mesh.text


def test_an_interrupt_during_the_start_stops_the_running_children(tmp_path: Path) -> None:
    stages = [[fake("edge", "--status", "503 Service Unavailable")], [fake("left")]]
    with MeshProcess(tmp_path, stages, {"start_notice": 0.5}) as mesh:
        mesh.read_until("still waiting")
        mesh.send(signal.SIGINT)
        assert mesh.wait() == 0
        # On a busy machine the signal may come before Python has installed a handler.
        assert re.search("edge (exited with status 0|was killed by SIGTERM) after", mesh.text)
        assert "Traceback" not in mesh.text


@linux
def test_the_children_of_a_killed_localmesh_exit_by_themselves(tmp_path: Path) -> None:
    with MeshProcess(tmp_path, chain()) as mesh:
        mesh.wait_until_ready()
        children = mesh.children()
        mesh.send(signal.SIGKILL)
        assert (len(children), left_of(children, EXIT_LIMIT)) == (4, [])
        stopping = sorted(line for line in mesh.journal if "stopping" in line)
        assert stopping == ["edge stopping", "left stopping", "right stopping", "traces stopping"]


@linux
def test_a_new_mesh_waits_for_the_children_of_a_killed_mesh(tmp_path: Path) -> None:
    stages = [[fake("edge", "--deaf")]]
    with MeshProcess(tmp_path, stages) as first:
        first.wait_until_ready()
        orphan = first.child("edge")
        first.send(signal.SIGKILL)
        first.process.wait()
        with MeshProcess(tmp_path, stages) as second:
            assert f"pid {orphan.pid} " in second.read_until("waiting until they exit")
            orphan.kill()
            second.wait_until_ready()
            assert second.child("edge").pid != orphan.pid


def test_a_second_mesh_with_the_same_state_directory_exits(tmp_path: Path) -> None:
    with MeshProcess(tmp_path, [[fake("edge")]]) as first:
        first.wait_until_ready()
        with MeshProcess(tmp_path, [[fake("edge")]]) as second:
            assert second.wait() == 1
        assert "another mesh uses" in second.text
        if sys.platform == "linux":
            assert f"(pid {first.process.pid} (" in second.text
        assert first.child("edge").is_running()


def test_a_mesh_whose_output_is_closed_stops_normally(tmp_path: Path) -> None:
    with MeshProcess(tmp_path, chain()) as mesh:
        mesh.wait_until_ready()
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


def test_reset_deletes_the_state_directory_unless_a_mesh_uses_it(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with MeshProcess(tmp_path, [[fake("edge")]]) as mesh:
        mesh.wait_until_ready()
        failure = localmesh(state, "reset")
        assert failure.returncode == 1
        assert "another mesh uses" in failure.stdout
        mesh.send(signal.SIGINT)
        assert mesh.wait() == 0
    assert (state / "logs" / "edge.log").read_text() == "edge serves\n"
    success = localmesh(state, "reset")
    assert (success.returncode, state.exists()) == (0, False)
    assert localmesh(state, "reset").returncode == 0


def test_reset_deletes_no_other_directory(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    failure = localmesh(tmp_path, "reset")
    assert failure.returncode == 1
    assert "is not the state directory of a mesh" in failure.stdout
    assert (tmp_path / "thesis.tex").exists()


def test_a_directory_with_other_files_is_not_used_as_state_directory(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    failure = localmesh(tmp_path)
    assert failure.returncode == 1
    assert "contains files that are not the state" in failure.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_state_directory_that_cannot_be_created_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    failure = localmesh(tmp_path / "file" / "state")
    assert failure.returncode == 1
    assert failure.stdout == f"STATE_DIR={tmp_path}/file/state cannot be used: Not a directory\n"
    assert failure.stderr == ""
