"""A listen address means the same for gRPC, HTTP and the page of metrics, and every form of it is checked."""

from __future__ import annotations

import socket
from contextlib import closing

import grpc
import psutil
import pytest

from meshkit import addresses
from meshkit.addresses import HostPort
from meshkit.fastapi.server import listen_socket
from meshkit.http.metrics_page import serving_metrics
from meshkit.lifecycle import AddressInUse, bind
from meshkit.telemetry.prometheus import MetricsPage

IPV4, IPV6 = "127.0.0.1", "::1"

FORMS = {
    "127.0.0.1": {IPV4},
    "127.1": {IPV4},
    "localhost": {IPV4},
    "LOCALHOST": {IPV4},
    "[::ffff:127.0.0.1]": {IPV4},
    "[::1]": {IPV6},
    "[0:0:0:0:0:0:0:1]": {IPV6},
    "[::1%lo]": {IPV6},
    "0.0.0.0": {IPV4, IPV6},
    "[::]": {IPV4, IPV6},
    "[::ffff:0.0.0.0]": {IPV4, IPV6},
}
"""Hosts, and the loopback addresses on which a server then accepts connections."""

each_form = pytest.mark.parametrize("host", FORMS)


def accepting(port: int) -> set[str]:
    """The loopback addresses on which this process accepts connections to a port; another may have it on the others."""
    sockets = psutil.Process().net_connections("tcp")
    own = {
        addresses.unmapped(each.laddr.ip)
        for each in sockets
        if each.status == psutil.CONN_LISTEN and each.laddr.port == port
    }
    found = set()
    for host, family in ((IPV4, socket.AF_INET), (IPV6, socket.AF_INET6)):
        with socket.socket(family) as client:
            if own & {host, "0.0.0.0", "::"} and client.connect_ex((host, port)) == 0:
                found.add(host)
    return found


@each_form
async def test_a_grpc_server_listens_on_the_address(host: str) -> None:
    server = grpc.aio.server()
    port = bind(server, f"{host}:0")
    await server.start()
    found = accepting(port)
    await server.stop(None)
    assert found == FORMS[host]


@each_form
def test_an_http_server_listens_on_the_address(host: str) -> None:
    with closing(listen_socket(f"{host}:0")) as listener:
        assert accepting(listener.getsockname()[1]) == FORMS[host]


@each_form
async def test_the_page_of_metrics_listens_on_the_address(caplog: pytest.LogCaptureFixture, host: str) -> None:
    caplog.set_level("INFO")
    async with serving_metrics(MetricsPage(), f"{host}:0"):
        [port] = [vars(record)["port"] for record in caplog.records if record.name == "meshkit.metrics"]
        assert accepting(port) == FORMS[host]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:08080", "127.0.0.1:8080"),
        ("[::1]:50051", "[::1]:50051"),
        ("[fe80::1%eth0]:1", "[fe80::1%eth0]:1"),
        ("pricing_1.example-2.org.:0", "pricing_1.example-2.org.:0"),
    ],
)
@pytest.mark.unit
def test_an_address_is_written_as_in_a_url(text: str, expected: str) -> None:
    assert str(addresses.parse(text)) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("", ":1", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:-1", "127.0.0.1:+1", "127.0.0.1:65536"),
        *("127.0.0.1:\u0661", " 127.0.0.1:1", "127.0.0.1:1\n", "127.0.0.1 :1", "127.0.0.1: 1", "256.0.0.1:1"),
        *("::1:1", "::1", "[::1]", "[::1]:", "[::1:1", "::1]:1", "[127.0.0.1]:1", "[localhost]:1", "[]:1", "[::g]:1"),
        *("http://127.0.0.1:1", "ipv4:127.0.0.1:1", "dns:///localhost:1", "unix:/run/socket", "unix:a:1"),
        *("a..b:1", ".:1", "-a:1", "a-:1", "*:1", "a,b:1", "user@a:1", "a/b:1", f"{'a' * 64}:1", f"a:{'1' * 9999}"),
    ],
)
@pytest.mark.unit
def test_a_text_that_is_no_address_is_rejected(text: str) -> None:
    with pytest.raises(ValueError, match="must be host:port"):
        addresses.parse(text)


async def test_a_name_without_an_address_cannot_be_bound() -> None:
    reasons = set()
    for attempt in (listen_socket, lambda listen: bind(grpc.aio.server(), listen)):
        with pytest.raises(AddressInUse, match=r"^cannot listen on nothing\.invalid:0: ") as caught:
            attempt("nothing.invalid:0")
        reasons.add(str(caught.value))
    assert len(reasons) == 1


@pytest.mark.unit
def test_an_ipv4_client_of_a_socket_for_both_families_keeps_its_address() -> None:
    assert addresses.unmapped("::ffff:192.0.2.1") == "192.0.2.1"
    assert [addresses.unmapped(host) for host in ("192.0.2.1", "::1", "fe80::1%eth0")] == [
        "192.0.2.1",
        "::1",
        "fe80::1%eth0",
    ]
    assert str(HostPort("::1", 5)) == "[::1]:5"
