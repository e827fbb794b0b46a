"""Reads settings from the environment, or says which variable is wrong and ends the process."""

from __future__ import annotations

import sys
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from meshkit.telemetry.provider import Instrumentation

Settings = TypeVar("Settings", bound=BaseSettings)


def _host_and_port(address: str) -> str:
    host, _, port = address.rpartition(":")
    if not (host and port.isascii() and port.isdecimal() and int(port) < 2**16):
        raise ValueError("must be host:port, such as 127.0.0.1:9464")
    return address


Address = Annotated[str, AfterValidator(_host_and_port)]
"""The type of a setting that is `host:port`. (gRPC itself takes 443 for a missing port, and others modulo 2^16.)"""

OptionalAddress = Annotated[str, AfterValidator(lambda address: address and _host_and_port(address))]
"""The type of a setting that is `host:port`, or empty for none."""

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
"""The type of a setting that is a finite time in seconds."""


class ProcessSettings(BaseSettings):
    """The settings that every process has. A service adds its own, and the prefix of its variables.

    Attributes:
        listen: `host:port` of the server.
        metrics_listen: `host:port` of the page of metrics; empty: none.
        drain_seconds: how long a stopping process goes on serving after it is NOT_SERVING.
        grace_seconds: how long requests in flight may take after that.
        log_level: the lowest level that is logged.
        telemetry: whose gRPC interceptors make the spans.
    """

    model_config = SettingsConfigDict(frozen=True)

    listen: Address
    metrics_listen: OptionalAddress = ""
    drain_seconds: Seconds = 0.0
    grace_seconds: Seconds = 5.0
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    telemetry: Instrumentation = "native"


def load_settings(cls: type[Settings]) -> Settings:
    """The settings of this process; a wrong value ends it with status 2 and one line for each wrong variable.

    The lines say what is wrong and never the value: it may hold a password.
    """
    try:
        return cls()
    except ValidationError as error:
        prefix = str(cls.model_config.get("env_prefix", ""))
        for problem in error.errors(include_url=False, include_input=False):
            variable = prefix + "_".join(str(part) for part in problem["loc"])
            print(f"{variable.upper()}: {problem['msg'].removeprefix('Value error, ')}", file=sys.stderr)  # noqa: T201
        sys.exit(2)
