"""Prints what to type in place of a target that the Makefile does not have: `nearest_target.py WRONG TARGET...`."""

from __future__ import annotations

import sys
from difflib import get_close_matches


def advice(wrong: str, targets: list[str]) -> str:
    """The target most like the wrong one, if one is, or else the list of all targets."""
    nearest = get_close_matches(wrong, targets, n=1)
    return f"`make {nearest[0]}`, or `make help` for all targets" if nearest else "`make help` for all targets"


if __name__ == "__main__":
    print(advice(sys.argv[1], sys.argv[2:]))
