"""The output of localmesh."""

import pytest

from localmesh.console import Console, columns

pytestmark = pytest.mark.unit


def test_columns_are_aligned_without_trailing_spaces() -> None:
    assert columns([("name", "pid"), ("api_edge", "7"), ("x", "12345")]) == [
        "  name      pid",
        "  api_edge  7",
        "  x         12345",
    ]


def test_a_pipe_gets_a_line_and_its_details_without_colours(capsys: pytest.CaptureFixture[str]) -> None:
    Console().bad("pricing exited", ["one", "two"])
    assert capsys.readouterr().out == "pricing exited\n  | one\n  | two\n"
