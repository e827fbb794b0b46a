"""Runs the inventory service: `python -m inventory`."""

import sys

from meshkit.logs import configure_logs  # the first: see GRPC_VERBOSITY there

# isort: split
from inventory.app import main
from inventory.settings import Settings
from meshkit.config import load_settings
from meshkit.lifecycle import run
from meshkit.telemetry.provider import configure

if __name__ == "__main__":
    settings = load_settings(Settings)
    configure_logs("inventory", settings.log_level)
    telemetry = configure("inventory", instrumentation=settings.telemetry, prometheus=bool(settings.metrics_listen))
    sys.exit(run(lambda stop: main(settings, telemetry, stop), telemetry, metrics_listen=settings.metrics_listen))
