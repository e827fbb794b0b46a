"""Runs the edge: `python -m api_edge`."""

# ruff: noqa: E402
import gc

gc.disable()  # what is imported lives as long as the process; `main` enables it

# isort: split
from meshkit.service import main  # the first: see GRPC_VERBOSITY in meshkit.logs

# isort: split
from api_edge.app import build
from api_edge.settings import Settings

if __name__ == "__main__":
    main("api_edge", Settings, build, has_metrics_route=True)
