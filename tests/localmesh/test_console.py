"""The output of localmesh."""

import sys

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


FOREIGN = "\x1b]0;x\x07 \x9b2J \x7f \u202egnp.exe\u2069 \u2028 \U000e0041 \r\ud800 caf\xe9 \N{TEACUP WITHOUT HANDLE}"
ESCAPED = r"\x1b]0;x\x07 \x9b2J \x7f \u202egnp.exe\u2069 \u2028 \U000e0041 \r\ud800 café 🍵"


def test_what_a_terminal_obeys_is_escaped_in_every_kind_of_line(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console()
    for show in (console.say, console.good, console.warn, console.bad):
        show(f"{FOREIGN}\nsecond line")
        assert capsys.readouterr().out == f"{ESCAPED}\nsecond line\n"
    console.bad("died", [f"{FOREIGN}\nforged"])
    assert capsys.readouterr().out == f"died\n  | {ESCAPED}\\nforged\n"
    console.table([FOREIGN], [["a\nb"]])
    assert capsys.readouterr().out == f"\n  {ESCAPED}\n  a\\nb\n"


def test_colours_are_not_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert Console().paint("a\x1b[0m", "31") == "\x1b[31ma\\x1b[0m\x1b[0m"
