"""A gRPC target is accepted only if a channel could ever reach it."""

from __future__ import annotations

import grpc
import pytest

from meshkit import targets
from meshkit.testing import start_server

RIGHT = (
    *("127.0.0.1:{port}", "[::1]:{port}", "0.0.0.0:{port}", "[::]:{port}", "localhost:{port}", "LOCALHOST:{port}"),
    *("[::ffff:127.0.0.1]:{port}", "dns:127.0.0.1:{port}", "dns:/127.0.0.1:{port}", "dns:///[::1]:{port}"),
    *("DNS:///127.0.0.1:{port}", "ipv4:127.0.0.1:{port}", "ipv4:///127.0.0.1:{port}", "ipv6:[::1]:{port}"),
    *("ipv6:%5B::1%5D:{port}", "ipv4:127.0.0.1:{port},127.0.0.2:{port}"),
)
"""Targets that reach a server on all addresses."""


@pytest.mark.parametrize("form", RIGHT)
async def test_a_target_that_grpc_reaches_is_accepted(form: str) -> None:
    server = grpc.aio.server()
    async with start_server(server, "[::]:0") as address:
        target = form.format(port=address.rpartition(":")[2])
        assert targets.check(target) == target
        async with grpc.aio.insecure_channel(target, [("grpc.enable_http_proxy", 0)]) as channel:
            await channel.channel_ready()


@pytest.mark.parametrize(
    "target",
    [
        *("dns:///pricing.aiomesh.svc.cluster.local.:50052", "dns://8.8.8.8/pricing:1", "dns://[::1]:53/pricing:1"),
        *("unix:/run/pricing", "unix:pricing", "unix:///run/pricing", "unix-abstract:pricing", "xds:///pricing"),
    ],
)
@pytest.mark.unit
def test_a_target_that_is_right_elsewhere_is_accepted(target: str) -> None:
    assert targets.check(target) == target


@pytest.mark.parametrize(
    "target",
    [
        *("", "pricing", "127.0.0.1", "[::1]", "::1:50052", "::1", "127.0.0.1:0", "127.0.0.1:65536", "127.1:50052"),
        *("http://127.0.0.1:50052", "https://pricing:50052", "grpc://pricing:50052", "passthrough:///127.0.0.1:1"),
        *("127.0.0.1:50052/", "127.0.0.1:50052/path", " 127.0.0.1:50052", "127.0.0.1:50052\n", "pricing: 50052"),
        *("a:1,b:2", "a:1;b:2", "a:1 b:2", "dns:///a:1,b:2", "pricing:https", "user@pricing:50052", "pr\u00edcing:1"),
        *("dns:///pricing", "dns:///", "dns://pricing:50052", "dns://pricing/127.0.0.1:1", "dns:////pricing:1"),
        *("ipv4:127.0.0.1", "ipv4:pricing:1", "ipv4:[::1]:1", "ipv6:::1:1", "ipv6:127.0.0.1:1", "ipv4:127.0.0.1:1,"),
        *("unix:", "unix://run/pricing", "256.0.0.1:1", "127.0.0.01:50052"),
    ],
)
@pytest.mark.unit
def test_a_target_that_no_channel_reaches_is_rejected(target: str) -> None:
    with pytest.raises(ValueError, match="must be a gRPC target with a port"):
        targets.check(target)


@pytest.mark.parametrize(
    ("target", "servers"),
    [
        ("127.0.0.1:50052", [("127.0.0.1", 50052)]),
        ("ipv6:%5B::1%5D:50052", [("::1", 50052)]),
        ("dns:///pricing:50052", [("pricing", 50052)]),
        ("ipv4:127.0.0.1:1,127.0.0.2:2", [("127.0.0.1", 1), ("127.0.0.2", 2)]),
        ("unix:/run/pricing", []),
        ("pricing", []),
    ],
)
@pytest.mark.unit
def test_the_servers_in_a_target_are_bare_addresses(target: str, servers: list[tuple[str, int]]) -> None:
    assert targets.servers(target) == servers
