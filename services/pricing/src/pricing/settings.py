"""The settings of the pricing process."""

from pydantic_settings import SettingsConfigDict

from meshkit.config import Address, GrpcSettings
from meshkit.database.urls import DatabaseUrl


class Settings(GrpcSettings):
    """Settings from PRICING_* variables. The standard OTEL_* variables configure telemetry."""

    model_config = SettingsConfigDict(env_prefix="PRICING_")

    listen: Address = "127.0.0.1:50052"
    """Address that the gRPC server listens on. Port 0 takes a free port; the log names it."""
    database_url: DatabaseUrl = "sqlite:///pricing.db"
    """The database: sqlite:///file or postgresql://user:password@host:port/name?parameter=value, as of libpq."""
