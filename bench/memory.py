"""The memory of a whole `make up` after some requests: the proportional set size (PSS) of all its processes."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import tempfile
import time
from pathlib import Path

import psutil

from bench.variants import free_port, wait_for_price

REQUESTS = 2000
SETTLE_SECONDS = 2.0
SERVICES = ("EDGE", "EDGE_GRPC", "TRACES", "OTLP", "INVENTORY", "PRICING")


def pss_of_make_up(repository: Path) -> int:
    """The PSS of a checkout's mesh in bytes, after REQUESTS reads by one caller."""
    with tempfile.TemporaryDirectory() as directory:
        ports = {f"{name}_PORT": str(free_port()) for name in SERVICES}
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", *SERVICES))}
        command = [str(repository / ".venv/bin/python"), "-m", "localmesh"]
        with Path(directory, "make-up.log").open("w") as log:
            variables = {**inherited, **ports, "STATE_DIR": f"{directory}/state"}
            process = subprocess.Popen(command, env=variables, cwd=repository, stdout=log, stderr=log)
        try:
            _read(int(ports["EDGE_PORT"]))
            time.sleep(SETTLE_SECONDS)
            return _pss(psutil.Process(process.pid))
        finally:
            process.terminate()
            process.wait()


def _read(port: int) -> None:
    wait_for_price(f"http://127.0.0.1:{port}")
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)

    def get(path: str) -> bytes:
        connection.request("GET", path)
        return connection.getresponse().read()

    products = json.loads(get("/v1/products?page_size=100"))["products"]
    for number in range(REQUESTS):
        get(f"/v1/products/{products[number % len(products)]['sku']}")
    connection.close()


def _pss(process: psutil.Process) -> int:
    return sum(int(each.memory_full_info().pss) for each in (process, *process.children(recursive=True)))
