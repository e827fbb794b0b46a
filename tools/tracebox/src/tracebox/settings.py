"""The settings of the tracebox process."""

from pydantic import PositiveInt
from pydantic_settings import BaseSettings, SettingsConfigDict

from meshkit.config import Address
from meshkit.http_settings import HostNames


class Settings(BaseSettings):
    """Settings from TRACEBOX_* variables."""

    model_config = SettingsConfigDict(env_prefix="TRACEBOX_", frozen=True)

    otlp_listen: Address = "127.0.0.1:4317"
    """Address of the OTLP/gRPC receiver. Port 0 takes a free port; the ready line names it."""
    query_listen: Address = "127.0.0.1:16686"
    """Address of the query API and the page. Port 0 takes a free port; the ready line names it."""
    allowed_hosts: HostNames = ()
    """Names or addresses by which pages and API are reached, besides localhost and the address that they listen on."""
    max_spans: PositiveInt = 100_000
    """The maximum number of stored spans; beyond it, the oldest traces are dropped."""
    max_bytes: PositiveInt = 64 * 1024 * 1024
    """The maximum memory of the stored traces in bytes, approximately; beyond it, the oldest traces are dropped."""
