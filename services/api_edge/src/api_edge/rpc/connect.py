"""The storefront's RPCs for connectrpc, with the servicer of the gRPC server."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from aiomesh.storefront.v1.storefront_service_connect import StorefrontServiceASGIApplication
from aiomesh.storefront.v1.storefront_service_pb2 import DESCRIPTOR
from api_edge.rpc.servicer import StorefrontServicer
from api_edge.rules import MAX_REQUEST_BYTES
from meshkit.connect.service import serve_rpcs

if TYPE_CHECKING:
    from api_edge.storefront import Storefront
    from meshkit.connect.paths import ASGIApp
    from meshkit.telemetry import Telemetry


def build_rpcs(storefront: Storefront, telemetry: Telemetry, *, max_pending: int) -> ASGIApp:
    """The ASGI app of the storefront's RPCs. connectrpc limits the size of a message before and after it is unpacked.

    Args:
        storefront: is served.
        telemetry: of the process.
        max_pending: the most unfinished calls.
    """
    return serve_rpcs(
        DESCRIPTOR.services_by_name["StorefrontService"],
        StorefrontServicer(storefront),
        partial(StorefrontServiceASGIApplication, read_max_bytes=MAX_REQUEST_BYTES),
        telemetry=telemetry,
        max_pending=max_pending,
    )
