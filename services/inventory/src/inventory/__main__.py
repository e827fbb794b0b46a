"""Runs the inventory service: `python -m inventory`."""

# ruff: noqa: E402
import gc

gc.disable()  # what is imported lives as long as the process; `main` enables it

# isort: split
from meshkit.service import main  # the first: see GRPC_VERBOSITY in meshkit.logs

# isort: split
from inventory.app import build
from inventory.settings import Settings

if __name__ == "__main__":
    main("inventory", Settings, build)
