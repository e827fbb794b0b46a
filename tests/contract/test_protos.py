"""The generated code is current, and the protos follow buf's rules."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from localmesh.services import read_services
from tools.protos import GENERATED, PROTOS, TRANSCODED, describe_transcoding, generate, lint

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

API = next(service.name for service in read_services() if service.protocol == "grpc")
REASONS = f"aiomesh/{API}/v1/error_reason.proto"


@pytest.fixture
def edit_protos(tmp_path: Path) -> Callable[[str, str], Path]:
    """Copies the protos, with one text replaced in the reasons of one API."""

    def edit(old: str, new: str) -> Path:
        copy = tmp_path / "protos"
        shutil.copytree(PROTOS, copy)
        text = (copy / REASONS).read_text()
        assert old in text
        (copy / REASONS).write_text(text.replace(old, new))
        return copy

    return edit


def generated_files(folder: Path) -> dict[str, bytes]:
    files = (path for path in (folder / "aiomesh").rglob("*") if path.is_file() and path.suffix != ".pyc")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def differences(one: Path, other: Path) -> set[str]:
    ours, theirs = generated_files(one), generated_files(other)
    return {name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)}


def test_the_generated_code_is_current(tmp_path: Path) -> None:
    generate(tmp_path)
    assert not differences(GENERATED, tmp_path), "run `make generate` and commit what it writes"


def test_the_descriptors_of_envoy_are_current(tmp_path: Path) -> None:
    describe_transcoding(tmp_path / "described.binpb")
    assert (tmp_path / "described.binpb").read_bytes() == TRANSCODED.read_bytes(), "run `make generate`"


def test_a_changed_comment_makes_the_generated_code_outdated(
    edit_protos: Callable[[str, str], Path], tmp_path: Path
) -> None:
    generate(tmp_path, edit_protos("Why a call failed.", "Why it failed."))
    assert differences(GENERATED, tmp_path) == {f"aiomesh/{API}/v1/error_reason_pb2.pyi"}


def test_a_generated_file_without_a_proto_is_reported(tmp_path: Path) -> None:
    generate(tmp_path)
    (tmp_path / "aiomesh" / "left_over_pb2.py").touch()
    assert differences(GENERATED, tmp_path) == {"aiomesh/left_over_pb2.py"}


def test_the_protos_follow_the_rules_of_buf(capfd: pytest.CaptureFixture[str]) -> None:
    assert lint() == 0, capfd.readouterr().out


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("  // Never sent.\n", "", "should have a non-empty comment"),
        ("ERROR_REASON_UNSPECIFIED", "UNSPECIFIED", 'should be prefixed with "ERROR_REASON_"'),
        (
            f"package aiomesh.{API}.v1;",
            f"package aiomesh.{API};",
            "should be suffixed with a correctly formed version",
        ),
    ],
    ids=["a comment removed", "a value without its prefix", "a package without its version"],
)
def test_protos_that_break_a_rule_are_rejected(
    edit_protos: Callable[[str, str], Path], capfd: pytest.CaptureFixture[str], old: str, new: str, complaint: str
) -> None:
    status = lint(edit_protos(old, new))
    assert complaint in capfd.readouterr().out
    assert status != 0
