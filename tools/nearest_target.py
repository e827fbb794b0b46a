"""Prints a suggestion for a target that the Makefile does not have: `nearest_target.py WRONG TARGET...`."""

from __future__ import annotations

import sys
from difflib import get_close_matches


def advice(wrong: str, targets: list[str]) -> str:
    """The most similar target if there is one, and `make help`."""
    nearest = get_close_matches(wrong, targets, n=1)
    return f"`make {nearest[0]}`, or `make help` for all targets" if nearest else "`make help` for all targets"


if __name__ == "__main__":
    print(advice(sys.argv[1], sys.argv[2:]))
