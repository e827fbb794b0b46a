"""The settings of the pricing process."""

from pydantic_settings import SettingsConfigDict

from meshkit.config import Address, ProcessSettings
from meshkit.database.engines import DatabaseUrl


class Settings(ProcessSettings):
    """Read from `PRICING_*` variables. Telemetry has the standard `OTEL_*` ones.

    Attributes:
        database_url: `sqlite:///file` or `postgresql://user:password@host:port/name`.
    """

    model_config = SettingsConfigDict(env_prefix="PRICING_")

    listen: Address = "127.0.0.1:50052"
    database_url: DatabaseUrl = "sqlite:///pricing.db"
