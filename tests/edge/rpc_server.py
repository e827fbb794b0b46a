"""The gRPC server that the edge builds, for tests of what any server of the mesh does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from api_edge.rpc.server import build_rpc_server

if TYPE_CHECKING:
    from collections.abc import Callable

    import grpc

    from meshkit.server.health import Health
    from meshkit.telemetry import Telemetry


def build_edge(
    add: Callable[[grpc.aio.Server], None], telemetry: Telemetry, *, max_pending: int, **_: Any
) -> tuple[grpc.aio.Server, Health]:
    """The server, with one more service. It has no storefront, so the methods of its own service fail. See `echo`."""
    server, health = build_rpc_server(cast("Any", None), telemetry, max_pending=max_pending, public=False)
    add(server)
    return server, health
