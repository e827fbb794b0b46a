"""The settings of the inventory process."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from meshkit.config import Address, GrpcSettings
from meshkit.database.urls import DatabaseUrl

YEAR = 365 * 24 * 3600.0


class Settings(GrpcSettings):
    """Settings from INVENTORY_* variables. The standard OTEL_* variables configure telemetry."""

    model_config = SettingsConfigDict(env_prefix="INVENTORY_")

    listen: Address = "127.0.0.1:50051"
    """Address that the gRPC server listens on. Port 0 takes a free port; the log names it."""
    database_url: DatabaseUrl = "sqlite:///inventory.db"
    """The database: sqlite:///file or postgresql://user:password@host:port/name?parameter=value, as of libpq."""
    reservation_ttl_seconds: float = Field(900.0, gt=0, le=YEAR)
    """Seconds that a reservation holds its units."""
    sweep_seconds: float = Field(2.0, gt=0, le=3600)
    """Seconds between two sweeps, which return the units of expired reservations."""
