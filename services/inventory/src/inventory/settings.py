"""The settings of the inventory process."""

from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from meshkit.config import Address, OptionalAddress
from meshkit.database.engines import DatabaseUrl
from meshkit.telemetry.provider import Instrumentation

YEAR = 365 * 24 * 3600.0


class Settings(BaseSettings):
    """Read from `INVENTORY_*` variables. Telemetry has the standard `OTEL_*` ones.

    Attributes:
        listen: `host:port` of the gRPC server.
        metrics_listen: `host:port` of the page of metrics; empty: none.
        database_url: `sqlite:///file` or `postgresql://user:password@host:port/name`.
        reservation_ttl_seconds: how long a reservation holds its units.
        sweep_seconds: how often units of expired reservations are given back.
        drain_seconds: how long a stopping process goes on serving after it is NOT_SERVING.
        grace_seconds: how long calls in flight may take after that.
        log_level: the lowest level that is logged.
        telemetry: whose gRPC interceptors make the spans.
    """

    model_config = SettingsConfigDict(env_prefix="INVENTORY_", frozen=True)

    listen: Address = "127.0.0.1:50051"
    metrics_listen: OptionalAddress = ""
    database_url: DatabaseUrl = "sqlite:///inventory.db"
    reservation_ttl_seconds: float = Field(900.0, gt=0, le=YEAR)
    sweep_seconds: float = Field(2.0, gt=0, le=3600)
    drain_seconds: float = Field(0.0, ge=0, allow_inf_nan=False)
    grace_seconds: float = Field(5.0, ge=0, allow_inf_nan=False)
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    telemetry: Instrumentation = "native"
