"""`make up GATEWAY=…` as a user runs it."""

from __future__ import annotations

import json
import signal
import socket
import ssl
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import grpc
import httpx
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from localmesh.gateways.known import GATEWAYS
from tests.e2e.local_mesh import EXIT_LIMIT, LocalMesh, pids_of_table
from tests.gateways.front import installed
from tests.gateways.shop import READ
from tests.gateways.test_answers import ORDER
from tests.processes import left_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOSTS = {"traefik": "localhost"}
BODY = json.dumps(ORDER).encode()

pytestmark = pytest.mark.timeout(90)  # the tests start processes


@pytest.mark.parametrize("name", GATEWAYS)
def test_make_up_runs_the_gateway_in_front_of_the_edge_and_stops_it_first(name: str, tmp_path: Path) -> None:
    installed(name)
    hosts = HOSTS.get(name, "")
    with LocalMesh(tmp_path / "state", {"GATEWAY": name, "GATEWAY_HOSTS": hosts}).running() as mesh:
        authority = mesh.state / "gateway-tls" / "ca.pem"
        url = f"https://localhost:{mesh.ports['GATEWAY_PORT']}"
        printed = f"https://{hosts or '127.0.0.1'}:{mesh.ports['GATEWAY_PORT']}/docs"
        assert any(printed in line for line in mesh.printed)
        with httpx.Client(verify=ssl.create_default_context(cafile=str(authority)), http2=True) as client:
            answer = client.get(url + READ)
        assert (answer.http_version, answer.status_code) == ("HTTP/2", 200)
        assert health(url.removeprefix("https://"), authority.read_bytes()) == health_pb2.HealthCheckResponse.SERVING
        with begun_order(mesh, authority) as connection:
            mesh.process.send_signal(signal.SIGINT)
            until_refused(mesh.ports["GATEWAY_PORT"])
            connection.sendall(BODY[1:])
            assert connection.recv(99).split()[1] in {b"200", b"201"}
        status = mesh.end()
        assert READ in (mesh.state / "logs" / f"{name}.log").read_text()
    ends = [line.split()[0] for line in mesh.printed if "exited with status 0" in line]
    assert (status, ends[:2]) == (0, [name, "api_edge"])


def test_a_gateway_that_is_killed_runs_again_and_its_workers_leave_the_port(tmp_path: Path) -> None:
    installed("nginx")
    with LocalMesh(tmp_path / "state", {"GATEWAY": "nginx"}).running() as mesh:
        nginx = psutil.Process(pids_of_table(mesh.printed)["nginx"])
        workers = nginx.children()
        nginx.kill()
        assert "nginx is ready again" in mesh.read_until("ready again")
        assert left_of([nginx, *workers], EXIT_LIMIT) == []
        url = f"https://localhost:{mesh.ports['GATEWAY_PORT']}{READ}"
        authority = ssl.create_default_context(cafile=str(mesh.state / "gateway-tls" / "ca.pem"))
        assert httpx.get(url, verify=authority).status_code == 200
        assert mesh.stop() == 0


@contextmanager
def begun_order(mesh: LocalMesh, authority: Path) -> Iterator[ssl.SSLSocket]:
    """A connection to the gateway on which an order waits for the rest of its body."""
    head = (
        f"POST /v1/orders HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(BODY)}"
    )
    context = ssl.create_default_context(cafile=str(authority))
    with (
        socket.create_connection(("127.0.0.1", mesh.ports["GATEWAY_PORT"]), timeout=15) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        connection.sendall(f"{head}\r\nExpect: 100-continue\r\n\r\n".encode() + BODY[:1])
        assert connection.recv(99).startswith(b"HTTP/1.1 100 ")
        yield connection


def until_refused(port: int) -> None:
    """Waits until nothing listens on a port."""
    with suppress(ConnectionError):
        while True:
            socket.create_connection(("127.0.0.1", port), timeout=15).close()


def health(target: str, authority: bytes) -> int:
    """The status of gRPC's health check, sent once."""
    options = [("grpc.enable_retries", 0)]
    with grpc.secure_channel(target, grpc.ssl_channel_credentials(authority), options) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        status: int = stub.Check(health_pb2.HealthCheckRequest(), timeout=10).status
    return status
