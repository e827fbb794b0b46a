"""Runs the pricing service: `python -m pricing`."""

# ruff: noqa: E402
import gc

gc.disable()  # what is imported lives as long as the process; `main` enables it

# isort: split
from meshkit.service import main  # the first: see GRPC_VERBOSITY in meshkit.logs

# isort: split
from pricing.app import build
from pricing.settings import Settings

if __name__ == "__main__":
    main("pricing", Settings, build)
