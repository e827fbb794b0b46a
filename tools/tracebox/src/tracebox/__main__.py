"""Runs tracebox alone: `python -m tracebox [--help]`."""

from __future__ import annotations

import sys

from tracebox.app import AddressInUse, run
from tracebox.settings import load_settings


def main() -> int:
    """Serves until a signal; the exit status is 0, or 1 when an address cannot be used."""
    try:
        run(load_settings())
    except AddressInUse as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
