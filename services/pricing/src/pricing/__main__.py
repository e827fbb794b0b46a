"""Runs the pricing service: `python -m pricing`."""

from meshkit.service import main  # the first: see GRPC_VERBOSITY in meshkit.logs

# isort: split
from pricing.app import build
from pricing.settings import Settings

if __name__ == "__main__":
    main("pricing", Settings, build)
