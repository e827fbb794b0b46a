"""The settings of the edge, from the environment: `EDGE_LISTEN`, `EDGE_PRICING_TARGET` and so on."""

from pathlib import Path

from pydantic import Field, ValidationInfo, field_validator
from pydantic_settings import SettingsConfigDict

from meshkit.client.batching import MAX_WAITING
from meshkit.config import GrpcSettings, OptionalAddress, Seconds, Target
from meshkit.http_settings import (
    CertificateFile,
    HostNames,
    InstalledServer,
    KeyFile,
    Networks,
    Origins,
    PathPrefix,
    check_pair,
)
from meshkit.tls import TlsFiles

YEAR = 365 * 24 * 3600.0


class Settings(GrpcSettings):
    """Settings from EDGE_* variables. The standard OTEL_* variables configure telemetry."""

    model_config = SettingsConfigDict(env_prefix="EDGE_")

    listen: OptionalAddress = "127.0.0.1:8080"
    """Address that the HTTP server listens on. Port 0 takes a free port; the log names it. Empty: no HTTP."""
    grpc_listen: OptionalAddress = Field("", validate_default=True)
    """Address that the gRPC server listens on; `make up` sets one. Port 0 takes a free port. Empty: no gRPC."""
    server: InstalledServer = "uvicorn"
    """The server of HTTP. Hypercorn and Granian speak HTTP/2; they are extras, and not for production."""
    tls_cert: CertificateFile = ""
    """Certificate of the HTTP server, then those between it and the root. gRPC's own port has no TLS. Empty: none."""
    tls_key: KeyFile = Field("", validate_default=True)
    """Private key of the certificate, not encrypted. Both files are read at the start only."""
    inventory_target: Target = "127.0.0.1:50051"
    """gRPC target of the inventory service, such as dns:///inventory:50051."""
    pricing_target: Target = "127.0.0.1:50052"
    """gRPC target of the pricing service, such as dns:///pricing:50052."""
    max_waiting: int = Field(MAX_WAITING, ge=1)
    """Lookups of stock, and of prices, that may wait to be sent together; further ones are RESOURCE_EXHAUSTED."""
    trace_url: str = Field("", pattern="^[!-~]*$")
    """URL of a trace's page for the Link header, with {trace_id} in place of the id. Empty: no Link header."""
    order_retention_seconds: float = Field(24 * 3600.0, ge=60, le=YEAR)
    """Seconds that an order which was not committed is remembered after its reservation has expired or would have."""
    purge_seconds: float = Field(600.0, gt=0, le=24 * 3600)
    """Seconds between two purges, which delete the orders that need not be remembered any longer."""
    trusted_proxies: Networks = ()
    """Proxies whose X-Forwarded-For, -Proto, -Host and -Prefix count. Empty: none."""
    path_prefix: PathPrefix = ""
    """Prefix that a proxy in front removes from every path, such as /shop; every link begins with it."""
    allowed_hosts: HostNames = ()
    """Names of this server; a request for another is a 421, except for a probe. Empty: any."""
    cors_origins: Origins = ()
    """Web origins whose pages may use the API (CORS). Empty: none."""
    public: bool = False
    """Whether every request begins a trace of its own, which is only linked to the caller's and sampled on its own."""
    drain_seconds: Seconds = 5.0
    """Seconds for which a stopping process still accepts requests after it is no longer ready."""
    grace_seconds: float = Field(20.0, gt=0, allow_inf_nan=False)
    """Seconds that requests in flight may take after that, before they are cancelled."""

    @property
    def tls(self) -> TlsFiles | None:
        """The files of the HTTP server; None for plain text."""
        return TlsFiles(Path(self.tls_cert), Path(self.tls_key)) if self.tls_cert else None

    @field_validator("tls_key")
    @classmethod
    def _belongs(cls, key: str, others: ValidationInfo) -> str:
        check_pair(key, others.data.get("tls_cert"), "EDGE_TLS_CERT")
        return key

    @field_validator("grpc_listen")
    @classmethod
    def _serves(cls, address: str, others: ValidationInfo) -> str:
        if not address and others.data.get("listen") == "":
            raise ValueError("must be an address if EDGE_LISTEN is empty, or the process would serve nothing")
        return address
