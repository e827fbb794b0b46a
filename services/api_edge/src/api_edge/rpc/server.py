"""The gRPC server of the storefront."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from aiomesh.storefront.v1.storefront_service_pb2 import DESCRIPTOR
from aiomesh.storefront.v1.storefront_service_pb2_grpc import add_StorefrontServiceServicer_to_server
from api_edge.rpc.servicer import StorefrontServicer
from api_edge.rules import MAX_REQUEST_BYTES
from meshkit.api import Api
from meshkit.server.build import build_server
from meshkit.server.health import Health
from meshkit.service import always_ready

if TYPE_CHECKING:
    from collections.abc import Sequence

    import grpc

    from api_edge.storefront import Storefront
    from meshkit.telemetry import Telemetry

STOREFRONT = Api(DESCRIPTOR.services_by_name["StorefrontService"])

OPTIONS = (("grpc.max_receive_message_length", MAX_REQUEST_BYTES),)
"""gRPC applies the limit to the compressed and to the decompressed message."""


def build_rpc_server(
    storefront: Storefront,
    telemetry: Telemetry,
    *,
    max_pending: int,
    public: bool,
    options: Sequence[tuple[str, int | str]] = (),
) -> tuple[grpc.aio.Server, Health]:
    """The server, not yet listening, and its health. It serves without its backends, with errors of theirs.

    Args:
        storefront: is served.
        telemetry: of the process.
        max_pending: the most unfinished calls.
        public: whether every call begins a trace of its own.
        options: of gRPC's core; each replaces the edge's or meshkit's of its name.
    """
    health = Health(STOREFRONT.name, always_ready)
    server = build_server(
        services={STOREFRONT.name: partial(add_StorefrontServiceServicer_to_server, StorefrontServicer(storefront))},
        health=health,
        telemetry=telemetry,
        max_pending=max_pending,
        own_traces=public,
        options=(*OPTIONS, *options),
    )
    return server, health
