"""The attribute, span and metric names that this library writes, in one place.

From the pinned opentelemetry-semantic-conventions: the RPC conventions are not stable yet and still change names.
https://opentelemetry.io/docs/specs/semconv/rpc/grpc/
"""

from grpc import StatusCode
from opentelemetry.semconv._incubating.attributes.rpc_attributes import (
    RPC_METHOD,
    RPC_METHOD_ORIGINAL,
    RPC_RESPONSE_STATUS_CODE,
    RPC_SYSTEM_NAME,
    RpcSystemNameValues,
)
from opentelemetry.semconv._incubating.metrics.http_metrics import HTTP_SERVER_ACTIVE_REQUESTS
from opentelemetry.semconv._incubating.metrics.rpc_metrics import (
    RPC_CLIENT_CALL_DURATION,
    RPC_SERVER_CALL_DURATION,
)
from opentelemetry.semconv.attributes.client_attributes import CLIENT_ADDRESS, CLIENT_PORT
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.semconv.attributes.http_attributes import (
    HTTP_REQUEST_METHOD,
    HTTP_REQUEST_METHOD_ORIGINAL,
    HTTP_RESPONSE_STATUS_CODE,
    HTTP_ROUTE,
)
from opentelemetry.semconv.attributes.network_attributes import NETWORK_PROTOCOL_VERSION
from opentelemetry.semconv.attributes.server_attributes import SERVER_ADDRESS, SERVER_PORT
from opentelemetry.semconv.attributes.url_attributes import URL_PATH, URL_QUERY, URL_SCHEME
from opentelemetry.semconv.metrics.http_metrics import HTTP_SERVER_REQUEST_DURATION
from opentelemetry.semconv.schemas import Schemas

GRPC = RpcSystemNameValues.GRPC.value
CONNECT = RpcSystemNameValues.CONNECTRPC.value
OTHER = "_OTHER"
"""The `rpc.method` of every unknown method."""

SCHEMA_URL = list(Schemas)[-1].value

RPC_CLIENT_ACTIVE_CALLS = "meshkit.rpc.client.active_calls"
RPC_SERVER_ACTIVE_CALLS = "meshkit.rpc.server.active_calls"
"""Our own names, because the conventions have `http.server.active_requests` but nothing similar for RPCs."""

RPC_BATCH_SIZE = "rpc.batch.size"
"""Our own name, after `db.operation.batch.size`: how many lookups an RPC was made for."""

DURATION_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
"""The bucket boundaries, in seconds, that the conventions advise for durations of calls."""

SERVER_ERRORS = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})
"""The gRPC status codes that make a server span an error."""

CLIENT_ERRORS = frozenset(code.name for code in StatusCode) - {"OK"}
"""The gRPC status codes that make a client span an error."""

__all__ = [
    "CLIENT_ADDRESS",
    "CLIENT_ERRORS",
    "CLIENT_PORT",
    "CONNECT",
    "DURATION_BUCKETS",
    "ERROR_TYPE",
    "GRPC",
    "HTTP_REQUEST_METHOD",
    "HTTP_REQUEST_METHOD_ORIGINAL",
    "HTTP_RESPONSE_STATUS_CODE",
    "HTTP_ROUTE",
    "HTTP_SERVER_ACTIVE_REQUESTS",
    "HTTP_SERVER_REQUEST_DURATION",
    "NETWORK_PROTOCOL_VERSION",
    "OTHER",
    "RPC_BATCH_SIZE",
    "RPC_CLIENT_ACTIVE_CALLS",
    "RPC_CLIENT_CALL_DURATION",
    "RPC_METHOD",
    "RPC_METHOD_ORIGINAL",
    "RPC_RESPONSE_STATUS_CODE",
    "RPC_SERVER_ACTIVE_CALLS",
    "RPC_SERVER_CALL_DURATION",
    "RPC_SYSTEM_NAME",
    "SCHEMA_URL",
    "SERVER_ADDRESS",
    "SERVER_ERRORS",
    "SERVER_PORT",
    "URL_PATH",
    "URL_QUERY",
    "URL_SCHEME",
]
