"""What localmesh prints: short lines on a terminal that may be gone at any time."""

import io
import os
import sys
from collections.abc import Sequence

GREEN, YELLOW, RED, BOLD, DIM = "32", "33", "31", "1", "2"


class Console:
    """Prints to standard output, in colours on a terminal that wants them (https://no-color.org); never fails.

    Attributes:
        is_terminal: whether a person may be looking at it.
    """

    def __init__(self) -> None:
        self.is_terminal = False
        if isinstance(sys.stdout, io.TextIOWrapper):  # None when it is closed
            self.is_terminal = sys.stdout.isatty()
            sys.stdout.reconfigure(errors="replace")  # a log may hold what the terminal cannot show
        self._colours = self.is_terminal and not os.environ.get("NO_COLOR")

    def say(self, text: str) -> None:
        """Prints a line."""
        self._print(text)

    def good(self, text: str) -> None:
        """Prints a line about something that works again."""
        self._print(self.painted(text, GREEN))

    def bad(self, text: str, details: Sequence[str] = ()) -> None:
        """Prints a line about a failure, and below it `details`, for example the last lines of a log."""
        self._print("\n".join([self.painted(text, RED), *(f"  | {line}" for line in details)]))

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Prints rows in columns below their head."""
        first, *others = columns([head, *rows])
        self._print("\n".join(["", self.painted(first, BOLD), *others]))

    def painted(self, text: str, colour: str) -> str:
        """The text in a colour, or as it is where there are none."""
        return f"\033[{colour}m{text}\033[0m" if self._colours else text

    def _print(self, text: str) -> None:
        try:
            print(text, flush=True)
        except OSError:  # the reader of the pipe, or the terminal, is gone
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines in which the cells of each column begin at the same place."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
