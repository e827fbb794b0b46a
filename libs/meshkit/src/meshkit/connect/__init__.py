"""Serves RPCs on the HTTP port of an ASGI app, by connectrpc: `pip install 'meshkit[connect]'`.

RpcPaths        takes the paths of a service from an app, and loads what serves them at the first call
serve_rpcs      the ASGI app of a service, in `meshkit.connect.service`: Connect, gRPC-Web, and gRPC where the server
                sends trailers, with the spans, errors, admission and deadlines of `meshkit.server`

All methods have one request and one response.
"""

from __future__ import annotations

from meshkit.extras import require

require("connect")

# isort: split
from meshkit.connect.paths import RpcPaths

__all__ = ["RpcPaths"]
