"""The settings of the edge, from the environment: `EDGE_LISTEN`, `EDGE_PRICING_TARGET` and so on."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from meshkit.telemetry import Instrumentation


class Settings(BaseSettings):
    """Settings of one edge process."""

    model_config = SettingsConfigDict(env_prefix="EDGE_", frozen=True)

    listen: str = "127.0.0.1:8080"
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

    @field_validator("listen")
    @classmethod
    def _host_and_port(cls, listen: str) -> str:
        port = listen.rpartition(":")[2]
        if ":" not in listen or not (port.isascii() and port.isdecimal() and int(port) < 2**16):
            raise ValueError("must be host:port, such as 127.0.0.1:8080")
        return listen
