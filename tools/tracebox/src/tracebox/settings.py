"""Reads the settings from `TRACEBOX_*` in the environment or the flags of the same names."""

from __future__ import annotations

import sys
from typing import Annotated

from pydantic import AfterValidator, Field, PositiveInt, ValidationError
from pydantic_settings import BaseSettings, CliApp, SettingsConfigDict

_MAX_PORT = 65535


def split_address(address: str) -> tuple[str, int]:
    """Host and port of `host:port`, where an IPv6 host stands in brackets. Raises ValueError."""
    host, _, port = address.rpartition(":")
    if not (host and port.isascii() and port.isdecimal() and int(port) <= _MAX_PORT):
        raise ValueError("must be host:port, such as 127.0.0.1:4317")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _address(value: str) -> str:
    split_address(value)
    return value


Address = Annotated[str, AfterValidator(_address)]


class Settings(BaseSettings):
    """Addresses to listen on (port 0 takes a free one) and the bounds of the store."""

    model_config = SettingsConfigDict(
        env_prefix="TRACEBOX_", frozen=True, cli_prog_name="tracebox", cli_kebab_case=True
    )

    otlp_listen: Address = Field("127.0.0.1:4317", description="host:port of the OTLP/gRPC receiver")
    query_listen: Address = Field("127.0.0.1:16686", description="host:port of the query API and the page")
    max_spans: PositiveInt = Field(100_000, description="spans held at most")
    max_bytes: PositiveInt = Field(64 * 1024 * 1024, description="encoded bytes of spans held at most")


def load_settings() -> Settings:
    """The settings of this process; a wrong value ends it with status 2 and one line for each wrong variable."""
    try:
        return CliApp.run(Settings)
    except ValidationError as error:
        for problem in error.errors():
            variable = f"TRACEBOX_{problem['loc'][0]}".upper()
            print(f"{variable}: {problem['msg'].removeprefix('Value error, ')}", file=sys.stderr)
        sys.exit(2)
