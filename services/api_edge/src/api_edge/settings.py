"""The settings of the edge, from the environment: `EDGE_LISTEN`, `EDGE_PRICING_TARGET` and so on."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from meshkit.config import Address, ProcessSettings, Seconds


class Settings(ProcessSettings):
    """Read from `EDGE_*` variables. Telemetry has the standard `OTEL_*` ones.

    Attributes:
        inventory_target: the gRPC target of inventory.
        pricing_target: the gRPC target of pricing.
        trace_url: where a trace can be looked at, with `{trace_id}` in it; empty: no links.
    """

    model_config = SettingsConfigDict(env_prefix="EDGE_")

    listen: Address = "127.0.0.1:8080"
    inventory_target: str = Field("127.0.0.1:50051", min_length=1)
    pricing_target: str = Field("127.0.0.1:50052", min_length=1)
    trace_url: str = Field("", pattern="^[!-~]*$")
    drain_seconds: Seconds = 5.0
    grace_seconds: float = Field(20.0, gt=0, allow_inf_nan=False)
