"""The text that a new mesh prints: pages to open and commands to copy."""

from __future__ import annotations

import json
import secrets
from shlex import quote
from typing import TYPE_CHECKING

from localmesh.probe import HOST

if TYPE_CHECKING:
    from localmesh.settings import Settings

SAMPLE_SKU = "TEA-0001"  # of the seeded catalogue


def welcome(edge: str, settings: Settings, grpc_address: str = "", gateway: str = "") -> str:
    """The pages, the logs, and three commands for any POSIX shell: a product, an order, the page of its trace.

    Args:
        edge: the URL of the edge.
        settings: of the mesh.
        grpc_address: where the edge serves gRPC; empty if it does not.
        gateway: the URL of the gateway in front of the edge, which the commands use; empty without one.
    """
    grpc = (
        f"\n  gRPC     {grpc_address}  (the same API; grpcurl -plaintext {grpc_address} list)" if grpc_address else ""
    )
    traces = f"http://{HOST}:{settings.traces_port}"
    headers = settings.state_dir / "order.headers"
    front = f"\n  gateway  {gateway}/docs  ({settings.gateway}: REST and gRPC, HTTP/2)" if gateway else ""
    reload = "\n  reload   on: an edit restarts its service" if settings.reload else ""
    return f"""
  API      {edge}/docs{grpc}{front}
  traces   {traces}  (one request: {traces}/trace/<X-Trace-Id of its response>)
  logs     {settings.state_dir / "logs"}{reload}

Copy one product, one order, and the address of that order's trace; Ctrl-C stops the mesh:

{product(gateway or edge)}

{order(gateway or edge, str(headers))}

{trace(traces, str(headers))}
"""


def product(edge: str) -> str:
    """A command for a product: in a currency without decimals, at a quantity with a price break."""
    return f"{_curl(edge)} -w '\\n' '{edge}/v1/products/{SAMPLE_SKU}?currency=JPY&quantity=12'"


def order(edge: str, headers: str) -> str:
    """A command for an order with a new random key, which writes the headers of the response to the file `headers`."""
    body = json.dumps({"currency": "EUR", "lines": [{"sku": SAMPLE_SKU, "quantity": 2}]}, separators=(",", ":"))
    arguments = f"-H 'Content-Type: application/json' -H 'Idempotency-Key: {secrets.token_hex(16)}' -d '{body}'"
    return f"{_curl(edge)} -w '\\n' -D {quote(headers)} {arguments} {edge}/v1/orders"


def _curl(edge: str) -> str:
    """curl, which accepts any certificate of an edge or gateway with TLS."""
    return "curl -sk" if edge.startswith("https:") else "curl -s"


def trace(traces: str, headers: str) -> str:
    """A command that prints the address of a trace's page, with the id from the file `headers`."""
    # curl's %header{} would need curl 7.84. 32 characters are the id without the carriage return.
    read_id = f"""awk 'tolower($1) == "x-trace-id:" {{print substr($2, 1, 32)}}' {quote(headers)}"""
    return f'echo "{traces}/trace/$({read_id})"'
