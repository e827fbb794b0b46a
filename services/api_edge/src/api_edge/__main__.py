"""Runs the edge: `python -m api_edge`."""

from meshkit.service import main  # the first: see GRPC_VERBOSITY in meshkit.logs

# isort: split
import uvloop

from api_edge.app import build
from api_edge.settings import Settings

if __name__ == "__main__":
    main("api_edge", Settings, build, has_metrics_route=True, loop_factory=uvloop.new_event_loop)
