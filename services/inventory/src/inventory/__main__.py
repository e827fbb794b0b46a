"""Runs the inventory service: `python -m inventory`."""

from meshkit.service import main  # the first: see GRPC_VERBOSITY in meshkit.logs

# isort: split
from inventory.app import build
from inventory.settings import Settings

if __name__ == "__main__":
    main("inventory", Settings, build)
