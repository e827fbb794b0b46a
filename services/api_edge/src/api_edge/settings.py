"""The settings of the edge, from the environment: `EDGE_LISTEN`, `EDGE_PRICING_TARGET` and so on."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from meshkit.config import Address, ProcessSettings, Seconds

YEAR = 365 * 24 * 3600.0


class Settings(ProcessSettings):
    """Settings from EDGE_* variables. The standard OTEL_* variables configure telemetry."""

    model_config = SettingsConfigDict(env_prefix="EDGE_")

    listen: Address = "127.0.0.1:8080"
    """Address that the HTTP server listens on. Port 0 takes a free port; the log names it."""
    inventory_target: str = Field("127.0.0.1:50051", min_length=1)
    """gRPC target of the inventory service, such as dns:///inventory:50051."""
    pricing_target: str = Field("127.0.0.1:50052", min_length=1)
    """gRPC target of the pricing service, such as dns:///pricing:50052."""
    trace_url: str = Field("", pattern="^[!-~]*$")
    """URL of a trace's page for the Link header, with {trace_id} in place of the id. Empty: no Link header."""
    order_retention_seconds: float = Field(24 * 3600.0, ge=60, le=YEAR)
    """Seconds that an order which was not committed is remembered after its reservation has expired or would have."""
    purge_seconds: float = Field(600.0, gt=0, le=24 * 3600)
    """Seconds between two purges, which delete the orders that need not be remembered any longer."""
    drain_seconds: Seconds = 5.0
    """Seconds for which a stopping process still accepts requests after /readyz fails."""
    grace_seconds: float = Field(20.0, gt=0, allow_inf_nan=False)
    """Seconds that requests in flight may take after that, before they are cancelled."""
