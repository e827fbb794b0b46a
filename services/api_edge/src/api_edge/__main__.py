"""`python -m api_edge`: the REST edge as a process."""

import sys
from functools import partial

from meshkit.logs import configure_logs  # the first: see GRPC_VERBOSITY there

# isort: split
import uvloop

from api_edge.app import run
from api_edge.settings import Settings
from meshkit import lifecycle, telemetry
from meshkit.config import load_settings


def main() -> int:
    """Runs the edge until SIGTERM or SIGINT; answers the exit status."""
    settings = load_settings(Settings)
    configure_logs("api_edge", settings.log_level)
    providers = telemetry.configure("api_edge", instrumentation=settings.telemetry, prometheus=True)
    return lifecycle.run(partial(run, settings, providers), providers, loop_factory=uvloop.new_event_loop)


if __name__ == "__main__":
    sys.exit(main())
