"""Reads settings from the environment, or says which variable is wrong and ends the process."""

from __future__ import annotations

import sys
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, Field, ValidationError, WithJsonSchema
from pydantic_settings import BaseSettings, SettingsConfigDict

from meshkit import addresses, targets

Settings = TypeVar("Settings", bound=BaseSettings)

DRAIN_SECONDS = 0.0
"""How long to go on serving after NOT_SERVING, by default: not at all, which is right where nothing balances load."""

GRACE_SECONDS = 5.0
"""How long requests in flight may take after that, by default."""


def _host_and_port(address: str) -> str:
    return str(addresses.parse(address))


Address = Annotated[str, AfterValidator(_host_and_port), WithJsonSchema({"type": "string", "format": "host:port"})]
"""The type of a setting that is `host:port`, see `meshkit.addresses`."""

OptionalAddress = Annotated[
    str,
    AfterValidator(lambda address: address and _host_and_port(address)),
    WithJsonSchema({"type": "string", "format": "host:port or empty"}),
]
"""The type of a setting that is `host:port`, or empty for none."""

Target = Annotated[str, AfterValidator(targets.check), WithJsonSchema({"type": "string", "format": "gRPC target"})]
"""The type of a setting that names a server for a gRPC channel, see `meshkit.targets`."""

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
"""The type of a setting that is a finite time in seconds."""

Instrumentation = Literal["native", "contrib"]
"""Whose gRPC interceptors make the spans: meshkit's own, or opentelemetry-instrumentation-grpc's."""

MAX_PENDING = 1000
"""The most unfinished calls of a gRPC server, by default."""


class ProcessSettings(BaseSettings):
    """The settings that every process has. A service adds its own, and the prefix of its variables.

    The text below each setting is its description in `--help`: see `meshkit.command_line`.
    """

    model_config = SettingsConfigDict(frozen=True)

    listen: Address
    """Address that the server listens on. Port 0 takes a free port; the log names it."""
    metrics_listen: OptionalAddress = ""
    """Address of the Prometheus page `/metrics`. Empty: no such page."""
    drain_seconds: Seconds = DRAIN_SECONDS
    """Seconds that a stopping process still accepts requests after it reports NOT_SERVING."""
    grace_seconds: Seconds = GRACE_SECONDS
    """Seconds that requests in flight may take after that, before they are cancelled."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """The lowest level that is logged."""
    telemetry: Instrumentation = "native"
    """The gRPC interceptors that make the spans: meshkit's own, or those of opentelemetry-instrumentation-grpc."""


class GrpcSettings(ProcessSettings):
    """The settings that every process with a gRPC server has."""

    max_pending: int = Field(MAX_PENDING, ge=1)
    """Unfinished gRPC calls above which further calls are refused with RESOURCE_EXHAUSTED, except health checks."""


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
