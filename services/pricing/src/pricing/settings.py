"""The settings of the pricing process."""

from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from meshkit.config import Address, OptionalAddress
from meshkit.database.engines import DatabaseUrl
from meshkit.telemetry import Instrumentation


class Settings(BaseSettings):
    """Read from `PRICING_*` variables. Telemetry has the standard `OTEL_*` ones.

    Attributes:
        listen: `host:port` of the gRPC server.
        metrics_listen: `host:port` of the page of metrics; empty: none.
        database_url: `sqlite:///file` or `postgresql://user:password@host:port/name`.
        drain_seconds: how long a stopping process goes on serving after it is NOT_SERVING.
        grace_seconds: how long calls in flight may take after that.
        log_level: the lowest level that is logged.
        telemetry: whose gRPC interceptors make the spans.
    """

    model_config = SettingsConfigDict(env_prefix="PRICING_", frozen=True)

    listen: Address = "127.0.0.1:50052"
    metrics_listen: OptionalAddress = ""
    database_url: DatabaseUrl = "sqlite:///pricing.db"
    drain_seconds: float = Field(0.0, ge=0, allow_inf_nan=False)
    grace_seconds: float = Field(5.0, ge=0, allow_inf_nan=False)
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    telemetry: Instrumentation = "native"
