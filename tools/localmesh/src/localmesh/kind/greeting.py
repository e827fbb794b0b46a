"""The text that a new mesh on the cluster prints: addresses, a trace and commands to copy."""

from __future__ import annotations

import json
import re
import tempfile
import time
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING

from localmesh.kind.cluster import host_ports
from localmesh.kind.programs import CONTEXT, NAMESPACE, CannotGoOn, kubectl
from localmesh.probe import HOST
from localmesh.welcome import SAMPLE_SKU, order, product, trace

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from localmesh.console import Console
    from localmesh.kind.settings import KindSettings

LIMIT = 30.0  # seconds for the first complete response and its trace
INTERVAL = 0.5
PROCESSES = 3  # in the trace of a product: the edge and two backends
PODS = '{range .items[*]}{.metadata.name}{" "}{.status.readyReplicas}{"\\n"}{end}'
PORTS = '{range .items[*]}{.metadata.name}{range .spec.ports[*]}{" "}{.port}:{.nodePort}{end}{"\\n"}{end}'
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # ignores the proxies of the environment


def greet(ready_after: Mapping[str, float], settings: KindSettings, console: Console) -> None:
    """Sends a request; prints a table of the workloads, the address of its trace, and three commands.

    Raises:
        CannotGoOn: the request failed, or its trace is incomplete.
    """
    edge, traces = f"http://{HOST}:{settings.edge_port}", f"http://{HOST}:{settings.traces_port}"
    example = trace_example(edge, traces)
    pods = dict(line.split(" ") for line in _read("deployments,statefulsets", PODS))
    found = addresses(_read("services", PORTS), settings)
    rows = [(name, found.get(name, ""), pods[name], f"{after:.0f} s") for name, after in ready_after.items()]
    console.table(("name", "address", "pods", "ready in"), rows)
    console.say(text(edge, traces, example, f"{HOST}:{settings.edge_grpc_port}"))


def addresses(services: Iterable[str], settings: KindSettings) -> dict[str, str]:
    """The address of each Service: on this machine if a port of the cluster leads to it, otherwise inside the cluster.

    Each line of `services` has a name and ports, each port with or without a node port: `jaeger 4317: 16686:30686`.
    """
    by_node_port = {str(node_port): port for node_port, port in host_ports(settings).items()}
    found = {}
    for name, *ports in map(str.split, services):
        pairs = [port.split(":") for port in ports]
        outside = [f"http://{HOST}:{by_node_port[node_port]}" for _, node_port in pairs if node_port in by_node_port]
        found[name] = outside[0] if outside else f"{name}.{NAMESPACE}:{pairs[0][0]}"
    return found


def trace_example(edge: str, traces: str) -> str:
    """Requests a product until the response and its trace are complete; returns the address of the trace's page.

    Raises:
        CannotGoOn: they are not complete within the limit.
    """
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline:
        headers, _ = _get(f"{edge}/v1/products/{SAMPLE_SKU}?strict=true")
        while headers and time.monotonic() < deadline:
            if _is_complete(f"{traces}/api/traces/{headers['x-trace-id']}"):
                return trace_link(headers.get("link", "")) or f"{traces}/trace/{headers['x-trace-id']}"
            time.sleep(INTERVAL)
        time.sleep(INTERVAL)
    raise CannotGoOn(f"{edge} did not return a complete response with its trace in {traces} within {LIMIT:.0f} s")


def trace_link(header: str) -> str | None:
    """The address of the trace in a Link header (RFC 8288), or None."""
    found = re.search(r'<([^>]+)>; *rel="trace"', header)
    return found[1] if found else None


def text(edge: str, traces: str, example: str, grpc: str) -> str:
    """The pages, the logs, and three commands for any POSIX shell: a product, an order, and the page of its trace."""
    headers = str(Path(tempfile.gettempdir()) / "aiomesh-order.headers")
    return f"""
  API      {edge}/docs
  gRPC     {grpc}  (the same API; grpcurl -plaintext {grpc} list)
  traces   {traces}  (an example: {example})
  logs     kubectl --context {CONTEXT} --namespace {NAMESPACE} logs deployment/api-edge

Copy one product, one order, and the address of that order's trace; make kind-down deletes the cluster:

{product(edge)}

{order(edge, headers)}

{trace(traces, headers)}
"""


def _read(resource: str, template: str) -> Sequence[str]:
    return kubectl("get", resource, f"--output=jsonpath={template}").splitlines()


def _is_complete(url: str) -> bool:
    _, body = _get(url)
    return bool(body) and len(json.loads(body)["data"][0]["processes"]) >= PROCESSES


def _get(url: str) -> tuple[dict[str, str], bytes]:
    """The headers, with names in lower case, and the body of a response; both are empty after an error."""
    try:
        with _OPENER.open(url, timeout=INTERVAL * 10) as response:
            return {name.lower(): value for name, value in response.headers.items()}, response.read()
    except (OSError, HTTPException):  # no connection, no response in time, or an HTTP error
        return {}, b""
