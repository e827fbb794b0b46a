"""What localmesh prints."""

import pytest

from localmesh.console import Console, columns

pytestmark = pytest.mark.unit


def test_columns_line_up_and_end_without_spaces() -> None:
    assert columns([("name", "pid"), ("api_edge", "7"), ("x", "12345")]) == [
        "  name      pid",
        "  api_edge  7",
        "  x         12345",
    ]


def test_details_stand_below_their_line_without_colours_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    Console().bad("pricing ended", ["one", "two"])
    assert capsys.readouterr().out == "pricing ended\n  | one\n  | two\n"
