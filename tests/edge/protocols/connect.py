"""Calls over Connect, with the client of connectrpc."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from connectrpc.client import ResponseMetadata
from connectrpc.errors import ConnectError
from connectrpc.request import Headers

from aiomesh.storefront.v1.storefront_service_connect import StorefrontServiceClient
from meshkit.connect.protocols import HTTP_STATUSES, code_name
from tests.edge.protocols.client import SECONDS, Failure
from tests.edge.protocols.rpc import details_of

if TYPE_CHECKING:
    from connectrpc.codec import Codec

    from tests.edge.protocols.rpc import Metadata

FUNCTIONS = {
    "GetProduct": "get_product",
    "ListProducts": "list_products",
    "PlaceOrder": "place_order",
    "GetOrder": "get_order",
    "CommitOrder": "commit_order",
    "ReleaseOrder": "release_order",
}
READS = {"GetProduct", "ListProducts", "GetOrder"}


class ConnectCaller:
    """See Caller. It packs requests by gzip. Its statuses are those of HTTP and of Connect.

    Args:
        url: of the edge.
        codec: JSON or binary.
        gets: whether to send reads as GET.
    """

    def __init__(self, url: str, codec: Codec[Any, Any], *, gets: bool = False) -> None:
        self._client = StorefrontServiceClient(url, codec=codec, timeout_ms=SECONDS * 1000)
        self._gets = gets

    def status_of(self, code: str) -> str:
        return f"{HTTP_STATUSES[code]} {code_name(code)}"

    async def call(self, method: str, request: Any, metadata: Metadata) -> tuple[Any, dict[str, Any]]:
        options = {"use_get": True} if self._gets and method in READS else {}
        function = getattr(self._client, FUNCTIONS[method])
        with ResponseMetadata() as received:
            try:
                response = await function(request, headers=Headers(metadata), **options)
            except ConnectError as error:
                details = [(detail.type_name, detail.message_bytes) for detail in error.details]
                status = f"{received.http_status} {error.code.value}"
                raise Failure(status, details_of(error.message, details)) from error
        return response, dict(received.trailers)
