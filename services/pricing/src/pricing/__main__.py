"""Runs the pricing service: `python -m pricing`."""

import sys

from meshkit.logs import configure_logs  # the first: see GRPC_VERBOSITY there

# isort: split
from meshkit.config import load_settings
from meshkit.lifecycle import run
from meshkit.telemetry import configure
from pricing.app import main
from pricing.settings import Settings

if __name__ == "__main__":
    settings = load_settings(Settings)
    configure_logs("pricing", settings.log_level)
    telemetry = configure("pricing", instrumentation=settings.telemetry, prometheus=bool(settings.metrics_listen))
    sys.exit(run(lambda stop: main(settings, telemetry, stop), telemetry, metrics_listen=settings.metrics_listen))
