"""The settings of the edge, from the environment: `EDGE_LISTEN`, `EDGE_PRICING_TARGET` and so on."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from meshkit.config import Address
from meshkit.telemetry import Instrumentation


class Settings(BaseSettings):
    """Settings of one edge process."""

    model_config = SettingsConfigDict(env_prefix="EDGE_", frozen=True)

    listen: Address = "127.0.0.1:8080"
    inventory_target: str = Field("127.0.0.1:50051", min_length=1)
    pricing_target: str = Field("127.0.0.1:50052", min_length=1)
    trace_url: str = Field(
        "",
        pattern="^[!-~]*$",
        description="Where a trace can be looked at, with {trace_id} in it; empty: no links",
    )
    drain_seconds: float = Field(5.0, ge=0, allow_inf_nan=False)
    grace_seconds: float = Field(20.0, gt=0, allow_inf_nan=False)
    telemetry: Instrumentation = "native"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
