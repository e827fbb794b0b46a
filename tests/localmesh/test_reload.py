"""`make up RELOAD=1`: localmesh as a real process with real children whose sources are edited."""

import re
import shutil
import signal
from pathlib import Path

import pytest

from localmesh.reload import syntax_error
from tests.localmesh.fakes.running import CHILD, MeshProcess, fake

pytestmark = pytest.mark.timeout(60)  # the tests start processes


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


def test_a_change_restarts_only_the_child_with_these_sources(tmp_path: Path, edge: Path, left: Path) -> None:
    with MeshProcess(tmp_path, [[fake("edge", sources=[edge])], [fake("left", sources=[left])]]) as mesh:
        mesh.wait_until_ready()
        before, other = mesh.child("edge"), mesh.child("left")
        (edge / "child.py").write_text(CHILD.read_text().replace("{arguments.name} {event}", "edited {event}"))
        assert mesh.read_until("changed") == "child.py changed: restarting edge\n"
        assert f"pid {before.pid}," not in mesh.read_until("edge is ready again")
        assert other.is_running()
        assert mesh.journal[-1] == "edited serves"


def test_a_change_of_shared_sources_restarts_every_child_that_uses_them(
    tmp_path: Path, edge: Path, left: Path, library: Path
) -> None:
    stages = [[fake("edge", sources=[edge, library])], [fake("left", sources=[left, library])], [fake("traces")]]
    with MeshProcess(tmp_path, stages) as mesh:
        mesh.wait_until_ready()
        traces = mesh.child("traces")
        (library / "data.csv").write_text("1")
        assert mesh.read_until("changed") == "data.csv changed: restarting left, edge\n"
        names = {re.findall(r"(edge|left) is ready again", mesh.read_until("is ready again"))[0] for _ in range(2)}
        assert names == {"edge", "left"}
        assert traces.is_running()


def test_a_temporary_file_that_replaces_a_source_is_not_a_change(tmp_path: Path, edge: Path) -> None:
    with MeshProcess(tmp_path, [[fake("edge", sources=[edge])]]) as mesh:
        mesh.wait_until_ready()
        temporary = edge / "sedXYZ"
        temporary.write_text(f"{CHILD.read_text()}# edited")
        temporary.rename(edge / "child.py")
        assert mesh.read_until("changed") == "child.py changed: restarting edge\n"


def test_a_deleted_module_restarts_its_child(tmp_path: Path, edge: Path) -> None:
    (edge / "unused.py").touch()
    with MeshProcess(tmp_path, [[fake("edge", sources=[edge])]]) as mesh:
        mesh.wait_until_ready()
        (edge / "unused.py").unlink()
        assert mesh.read_until("changed") == "unused.py changed: restarting edge\n"


def test_a_restart_skips_the_drain(tmp_path: Path, edge: Path) -> None:
    with MeshProcess(
        tmp_path, [[fake("edge", "--stop-seconds", "600", sources=[edge])]], {"hurried_stop": 600}
    ) as mesh:
        mesh.wait_until_ready()
        (edge / "new.py").touch()
        mesh.read_until("edge is ready again")
        assert mesh.journal == ["edge serves", "edge stopping", "edge hurried", "edge serves"]
        mesh.send(signal.SIGINT)
        mesh.read_until("stopping")
        mesh.send(signal.SIGINT)
        assert mesh.wait() == 0
        assert "Task was destroyed" not in mesh.text


def test_a_child_that_does_not_stop_is_killed_and_restarted(tmp_path: Path, edge: Path) -> None:
    with MeshProcess(tmp_path, [[fake("edge", "--deaf", sources=[edge])]], {"hurried_stop": 0.1, "stop": 0.1}) as mesh:
        mesh.wait_until_ready()
        (edge / "new.py").touch()
        mesh.read_until("edge is ready again")


def test_a_syntax_error_is_one_line_and_the_old_process_runs_until_it_is_corrected(tmp_path: Path, edge: Path) -> None:
    with MeshProcess(tmp_path, [[fake("edge", sources=[edge])]]) as mesh:
        mesh.wait_until_ready()
        before = mesh.child("edge")
        (edge / "child.py").write_text("import os\ndef broken(:\n")
        assert mesh.read_until("child.py") == (
            f"{edge / 'child.py'}:2: invalid syntax; save it without the error to restart edge\n"
        )
        (edge / "other.py").write_text("pass")
        mesh.read_until("child.py:2: invalid syntax")
        assert before.is_running()
        (edge / "child.py").write_text(CHILD.read_text())
        assert mesh.read_until("changed") == "child.py and 1 more changed: restarting edge\n"
        mesh.read_until("edge is ready again")
        assert mesh.journal.count("edge serves") == 2


def test_a_child_that_fails_after_a_change_is_restarted_by_the_next_change(tmp_path: Path, edge: Path) -> None:
    with MeshProcess(tmp_path, [[fake("edge", sources=[edge])]]) as mesh:
        mesh.wait_until_ready()
        (edge / "child.py").write_text("raise SystemExit('no such module')")
        failure = mesh.read_until("edge exited")
        assert failure == "edge exited with status 1: save a change to restart it\n"
        assert mesh.read_until("|") == "  | no such module\n"
        (edge / "child.py").write_text(CHILD.read_text())
        mesh.read_until("edge is ready again")


@pytest.mark.unit
@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("a.py", b"x = 1", None),
        ("a.py", b"x = '\\d'", None),
        ("a.py", b"\nx =", "2: invalid syntax"),
        ("a.py", b"import os\nfrom __future__ import annotations", "2: from __future__ imports must occur at "),
        ("a.py", b"return 5", "1: 'return' outside function"),
        ("a.py", b"await x", "1: 'await' outside function"),
        ("a.py", b"assert (x, 'always true')", None),
        ("a.csv", b"\nx =", None),
    ],
)
def test_a_syntax_error_is_found_only_in_python_files(
    tmp_path: Path, name: str, content: bytes, error: str | None
) -> None:
    (tmp_path / name).write_bytes(content)
    found = syntax_error(tmp_path / name)
    assert found is error is None or str(found).startswith(str(error))


@pytest.mark.unit
def test_a_missing_file_or_null_bytes_cause_no_traceback(tmp_path: Path) -> None:
    assert syntax_error(tmp_path / "gone.py") is None
    (tmp_path / "null.py").write_bytes(b"\0")
    assert "null byte" in str(syntax_error(tmp_path / "null.py"))
