"""What can be set from outside: ``TRACEBOX_*`` in the environment, or the flag of the same name."""

from typing import Annotated

from pydantic import AfterValidator, Field, PositiveInt, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

_MAX_PORT = 65535


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of ``host:port``, where an IPv6 host stands in brackets; raises ValueError."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > _MAX_PORT:
        raise ValueError(f"{address!r} is not host:port")
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


def explain(error: ValidationError) -> str:
    """Say in one line for each wrong setting which variable it is and what is wrong with it."""
    return "\n".join(
        f"tracebox: TRACEBOX_{str(problem['loc'][0]).upper()}: {problem['msg'].removeprefix('Value error, ')}"
        for problem in error.errors()
    )
