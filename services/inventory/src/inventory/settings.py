"""The settings of the inventory process."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from meshkit.config import Address, ProcessSettings
from meshkit.database.engines import DatabaseUrl

YEAR = 365 * 24 * 3600.0


class Settings(ProcessSettings):
    """Read from `INVENTORY_*` variables. Telemetry has the standard `OTEL_*` ones.

    Attributes:
        database_url: `sqlite:///file` or `postgresql://user:password@host:port/name`.
        reservation_ttl_seconds: how long a reservation holds its units.
        sweep_seconds: how often units of expired reservations are given back.
    """

    model_config = SettingsConfigDict(env_prefix="INVENTORY_")

    listen: Address = "127.0.0.1:50051"
    database_url: DatabaseUrl = "sqlite:///inventory.db"
    reservation_ttl_seconds: float = Field(900.0, gt=0, le=YEAR)
    sweep_seconds: float = Field(2.0, gt=0, le=3600)
