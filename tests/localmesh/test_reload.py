"""`make up RELOAD=1`: localmesh as a real process over real children, whose sources are edited."""

import re
import shutil
import signal
from pathlib import Path

import pytest

from localmesh.reload import syntax_error
from tests.localmesh.fakes.running import CHILD, Running, fake

pytestmark = pytest.mark.timeout(60)  # they start processes


@pytest.fixture
def edge(tmp_path: Path) -> Path:
    return sources(tmp_path / "edge")


@pytest.fixture
def left(tmp_path: Path) -> Path:
    return sources(tmp_path / "left")


@pytest.fixture
def library(tmp_path: Path) -> Path:
    return sources(tmp_path / "library")


def sources(folder: Path) -> Path:
    folder.mkdir()
    shutil.copy(CHILD, folder)
    return folder


def test_a_change_restarts_the_child_of_the_sources_alone(tmp_path: Path, edge: Path, left: Path) -> None:
    with Running(tmp_path, [[fake("edge", sources=[edge])], [fake("left", sources=[left])]]) as mesh:
        mesh.is_up()
        before, other = mesh.child("edge"), mesh.child("left")
        (edge / "child.py").write_text(CHILD.read_text().replace("{arguments.name} {event}", "edited {event}"))
        assert mesh.until("changed") == "child.py changed: restarting edge\n"
        assert f"pid {before.pid}," not in mesh.until("edge is ready again")
        assert other.is_running()
        assert mesh.journal[-1] == "edited serves"


def test_a_change_of_shared_sources_restarts_every_child(tmp_path: Path, edge: Path, left: Path, library: Path) -> None:
    stages = [[fake("edge", sources=[edge, library])], [fake("left", sources=[left, library])], [fake("traces")]]
    with Running(tmp_path, stages) as mesh:
        mesh.is_up()
        traces = mesh.child("traces")
        (library / "data.csv").write_text("1")
        assert mesh.until("changed") == "data.csv changed: restarting left, edge\n"
        names = {re.findall(r"(edge|left) is ready again", mesh.until("is ready again"))[0] for _ in range(2)}
        assert names == {"edge", "left"}
        assert traces.is_running()


def test_a_restart_waits_for_no_drain(tmp_path: Path, edge: Path) -> None:
    with Running(tmp_path, [[fake("edge", "--stop-seconds", "600", sources=[edge])]], {"hurried_stop": 600}) as mesh:
        mesh.is_up()
        (edge / "new.py").touch()
        mesh.until("edge is ready again")
        assert mesh.journal == ["edge serves", "edge stopping", "edge hurried", "edge serves"]
        mesh.send(signal.SIGINT)
        mesh.until("stopping")
        mesh.send(signal.SIGINT)
        assert mesh.end() == 0
        assert "Task was destroyed" not in mesh.text


def test_a_child_that_does_not_stop_is_killed_to_be_restarted(tmp_path: Path, edge: Path) -> None:
    with Running(tmp_path, [[fake("edge", "--deaf", sources=[edge])]], {"hurried_stop": 0.1, "stop": 0.1}) as mesh:
        mesh.is_up()
        (edge / "new.py").touch()
        mesh.until("edge is ready again")


def test_a_syntax_error_is_one_line_and_the_old_process_runs_on_until_it_is_mended(tmp_path: Path, edge: Path) -> None:
    with Running(tmp_path, [[fake("edge", sources=[edge])]]) as mesh:
        mesh.is_up()
        before = mesh.child("edge")
        (edge / "child.py").write_text("import os\ndef broken(:\n")
        assert mesh.until("child.py") == (
            f"{edge / 'child.py'}:2: invalid syntax; not restarted until you save it again: edge\n"
        )
        (edge / "other.py").write_text("pass")
        mesh.until("child.py:2: invalid syntax")
        assert before.is_running()
        (edge / "child.py").write_text(CHILD.read_text())
        assert mesh.until("changed") == "child.py and 1 more changed: restarting edge\n"
        mesh.until("edge is ready again")
        assert mesh.journal.count("edge serves") == 2


def test_a_child_that_fails_after_a_change_is_started_again_by_the_next(tmp_path: Path, edge: Path) -> None:
    with Running(tmp_path, [[fake("edge", sources=[edge])]]) as mesh:
        mesh.is_up()
        (edge / "child.py").write_text("raise SystemExit('no such module')")
        failed = mesh.until("edge ended")
        assert failed == "edge ended with exit status 1: it is started again when you save\n"
        assert mesh.until("|") == "  | no such module\n"
        (edge / "child.py").write_text(CHILD.read_text())
        mesh.until("edge is ready again")


@pytest.mark.unit
@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("a.py", b"x = 1", None),
        ("a.py", b"x = '\\d'", None),
        ("a.py", b"\nx =", "2: invalid syntax"),
        ("a.csv", b"\nx =", None),
    ],
)
def test_a_syntax_error_is_found_in_python_alone(tmp_path: Path, name: str, content: bytes, error: str | None) -> None:
    (tmp_path / name).write_bytes(content)
    assert syntax_error(tmp_path / name) == error


@pytest.mark.unit
def test_a_file_that_is_gone_or_holds_null_bytes_is_no_traceback(tmp_path: Path) -> None:
    assert syntax_error(tmp_path / "gone.py") is None
    (tmp_path / "null.py").write_bytes(b"\0")
    assert "null byte" in str(syntax_error(tmp_path / "null.py"))
