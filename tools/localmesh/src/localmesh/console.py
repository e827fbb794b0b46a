"""Prints short lines, to a terminal or a pipe that may close at any time."""

import io
import os
import sys
from collections.abc import Sequence

GREEN, YELLOW, RED, BOLD, DIM = "32", "33", "31", "1", "2"


class Console:
    """Prints to standard output and never fails. Uses colours on a terminal, unless NO_COLOR is set (https://no-color.org).

    Attributes:
        is_terminal: whether the output is a terminal, so a person may read it.
    """

    def __init__(self) -> None:
        self.is_terminal = False
        if isinstance(sys.stdout, io.TextIOWrapper):  # None when it is closed
            self.is_terminal = sys.stdout.isatty()
            sys.stdout.reconfigure(errors="replace")  # a log may contain characters that the terminal cannot show
        self._colours = self.is_terminal and not os.environ.get("NO_COLOR")

    def say(self, text: str) -> None:
        """Prints a line."""
        self._print(text)

    def good(self, text: str) -> None:
        """Prints a line about a success, in green."""
        self._print(self.paint(text, GREEN))

    def warn(self, text: str) -> None:
        """Prints a line about something to correct, in yellow."""
        self._print(self.paint(text, YELLOW))

    def bad(self, text: str, details: Sequence[str] = ()) -> None:
        """Prints a line about a failure in red, and below it `details`, such as the last lines of a log."""
        self._print("\n".join([self.paint(text, RED), *(f"  | {line}" for line in details)]))

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Prints the head and the rows in columns."""
        first, *others = columns([head, *rows])
        self._print("\n".join(["", self.paint(first, BOLD), *others]))

    def paint(self, text: str, colour: str) -> str:
        """The text in a colour, or unchanged if the output has no colours."""
        return f"\033[{colour}m{text}\033[0m" if self._colours else text

    def _print(self, text: str) -> None:
        try:
            print(text, flush=True)
        except OSError:  # the terminal or the reader of the pipe is gone
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """The rows as lines with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
