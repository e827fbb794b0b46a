"""Runs tracebox alone: `python -m tracebox [--help]`."""

# ruff: noqa: E402
from __future__ import annotations

import gc
import sys

gc.disable()  # what is imported lives as long as the process

from meshkit.command_line import read_arguments
from meshkit.config import load_settings
from meshkit.unknown_variables import warn_of_unknown_variables
from tracebox.app import AddressInUse, run
from tracebox.settings import Settings


def main() -> int:
    """Serves until a signal; the exit status is 0, 1 if an address cannot be used, or 2 for an invalid setting."""
    read_arguments("tracebox", Settings, sys.argv[1:])
    settings = load_settings(Settings)
    warn_of_unknown_variables("tracebox", Settings)
    gc.freeze()
    gc.enable()
    try:
        run(settings)
    except AddressInUse as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
