"""The storefront's RPCs on the HTTP port, beside REST: Connect and gRPC-Web, and gRPC where the server sends trailers.

`aiomesh.storefront.v1` is loaded for connectrpc at the first call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from api_edge.rpc.server import STOREFRONT
from meshkit.connect import RpcPaths

if TYPE_CHECKING:
    from api_edge.storefront import Storefront
    from meshkit.connect.paths import ASGIApp
    from meshkit.telemetry import Telemetry


def with_rpc_paths(app: ASGIApp, storefront: Storefront, telemetry: Telemetry, *, max_pending: int) -> ASGIApp:
    """The app, except for the paths of the storefront's RPCs.

    Args:
        app: serves all other paths.
        storefront: is served.
        telemetry: of the process.
        max_pending: the most unfinished calls.
    """

    def build() -> ASGIApp:
        from api_edge.rpc.connect import build_rpcs  # noqa: PLC0415 - see RpcPaths

        return build_rpcs(storefront, telemetry, max_pending=max_pending)

    return RpcPaths(app, service=STOREFRONT.name, build=build)
