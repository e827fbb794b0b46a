"""Prints short lines, to a terminal or a pipe that may close at any time."""

import io
import os
import sys
from collections.abc import Sequence

GREEN, YELLOW, RED, BOLD, DIM = "32", "33", "31", "1", "2"


class Console:
    """Prints to standard output and never fails. Uses colours on a terminal, unless NO_COLOR is set (https://no-color.org).

    Texts may come from anywhere, such as the path of a request in the log of a crash: what a terminal would obey is
    escaped.

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
        """Prints a text."""
        self._print(escape(text, "\n"))

    def say_escaped(self, text: str) -> None:
        """Prints a text as it is: its foreign parts are escaped, and others may be painted."""
        self._print(text)

    def good(self, text: str) -> None:
        """Prints a line about a success, in green."""
        self._print(self.paint(text, GREEN))

    def warn(self, text: str) -> None:
        """Prints a line about something to correct, in yellow."""
        self._print(self.paint(text, YELLOW))

    def bad(self, text: str, details: Sequence[str] = ()) -> None:
        """Prints a line about a failure in red, and below it `details`, such as the last lines of a log."""
        self._print("\n".join([self.paint(text, RED), *(f"  | {escape(line)}" for line in details)]))

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Prints the head and the rows in columns."""
        first, *others = columns([[*map(escape, row)] for row in (head, *rows)])
        self._print("\n".join(["", self.paint(first, BOLD), *others]))

    def paint(self, text: str, colour: str) -> str:
        """The text, escaped, in a colour if the output has colours."""
        escaped = escape(text, "\n")
        return f"\033[{colour}m{escaped}\033[0m" if self._colours else escaped

    def _print(self, text: str) -> None:
        try:
            print(text, flush=True)
        except OSError:  # the terminal or the reader of the pipe is gone
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def escape(text: str, keep: str = "") -> str:
    r"""The text with a visible escape, such as `\x1b`, for each character that is not printable and not in `keep`.

    Those are control and format characters, also those that change the direction of text, and line separators.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text)


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """The rows as lines with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
