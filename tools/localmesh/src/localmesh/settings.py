"""The settings of the local mesh, such as ports, the state directory and the trace backend."""

import itertools
import os
import re
import shutil
from collections.abc import Sequence
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Annotated, Self, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, create_model, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from localmesh.gateways.known import GATEWAYS
from localmesh.gateways.traefik import TRAEFIK
from localmesh.probe import HOST
from localmesh.services import Service


class InvalidSettings(Exception):
    """Environment variables are invalid; the text has one line for each."""


def _executable(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        raise ValueError("no such program")
    return found


def _resolved(path: Path) -> Path:
    return path.expanduser().resolve()


def _names(text: str | Sequence[str]) -> Sequence[str]:
    return [name.strip() for name in text.split(",")] if isinstance(text, str) else text


def _gateway(name: str) -> str:
    if name and name not in GATEWAYS:
        nearest = get_close_matches(name.lower(), GATEWAYS, n=1)
        advice = f"did you mean {nearest[0]}?" if nearest else f"choose from {', '.join(GATEWAYS)}"
        raise ValueError(f"no such gateway; {advice}")
    return name


def _file(path: Path) -> Path:
    found = path.expanduser().resolve()
    if not found.is_file():
        raise ValueError("no such file")
    return found


def _check_names(services: Sequence[str], names: Sequence[str]) -> Sequence[str]:
    if unknown := [name for name in names if name not in services]:
        raise ValueError(f"no such service: {', '.join(unknown)}; choose from {', '.join(services)}")
    return names


def _check_hosts(names: Sequence[str]) -> Sequence[str]:
    if wrong := [name for name in names if not HOST_NAME.fullmatch(name)]:
        raise ValueError(f"not a host name: {wrong[0]}; write shop.example.com,www.example.com")
    return names


HOST_NAME = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)*", re.IGNORECASE)
MAX_PORT = 65535
Port = Annotated[int, Field(ge=1, le=MAX_PORT)]
Executable = Annotated[str, AfterValidator(_executable)]
AnySettings = TypeVar("AnySettings", bound=BaseSettings)
Directory = Annotated[Path, AfterValidator(_resolved)]
File = Annotated[Path, AfterValidator(_file)]
GatewayName = Annotated[str, AfterValidator(_gateway)]
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_names)]
HostNames = Annotated[Names, AfterValidator(_check_hosts)]

REASONS: dict[object, str] = {int: f"must be a whole number from 1 to {MAX_PORT}", bool: "must be 1 or 0"}
"""What is wrong with a value, by the type of the setting, instead of pydantic's words: every whole number is a port."""


class Settings(BaseSettings):
    """Read from the environment variables of the same names; an empty variable counts as unset.

    `settings_for` adds the port of each service, and checks the names in `without`.
    """

    model_config = SettingsConfigDict(frozen=True, env_ignore_empty=True)

    traces_port: Port = 16686
    """Port of the trace pages and their query API."""
    otlp_port: Port = 4317
    """Port of the OpenTelemetry receiver (OTLP/gRPC)."""
    state_dir: Directory = Field(default=Path(".localmesh"), validate_default=True)
    """Directory of databases and logs."""
    jaeger_bin: Executable | None = Field(default_factory=lambda: shutil.which("jaeger"))
    """Jaeger v2 program to run instead of tracebox. By default the one on the PATH, if there is one."""
    reload: bool = False
    """Whether a service is restarted when its sources change."""
    without: Names = ()
    """Services that are not started: you start them, for example in a debugger."""
    gateway: GatewayName = ""
    """Program in front of the edge, with TLS and HTTP/2: nginx, traefik or envoy. Installed when named. Empty: none."""
    gateway_port: Port = 8443
    """HTTPS port of the gateway."""
    gateway_hosts: HostNames = ()
    """Host names that Traefik serves; others are a 404. Empty: any."""
    gateway_tls_cert: File | None = None
    """Certificate of the gateway. By default one for localhost is made in the state directory."""
    gateway_tls_key: File | None = None
    """Private key of that certificate."""

    @property
    def ports(self) -> dict[str, int]:
        """The port numbers by the variable that sets each; that of the gateway only if one runs."""
        unused = set() if self.gateway else {"gateway_port"}
        fields = (name for name in type(self).model_fields if name.endswith("_port") and name not in unused)
        return {name.upper(): getattr(self, name) for name in fields}

    def port_of(self, service: Service) -> int:
        """The port that a service listens on."""
        return self.ports[service.port_variable]

    def grpc_address_of(self, service: Service) -> str:
        """The address at which a service with HTTP also serves gRPC; empty if it does not."""
        return f"{HOST}:{self.ports[service.grpc_port_variable]}" if service.grpc_port else ""

    @model_validator(mode="after")
    def _ports_differ(self) -> Self:
        for (one, number), (other, same) in itertools.combinations(self.ports.items(), 2):
            if number == same:
                raise ValueError(f"{one} and {other} are both {number}: give each its own port")
        return self

    @model_validator(mode="after")
    def _hosts_are_routed(self) -> Self:
        if self.gateway_hosts and self.gateway not in {"", TRAEFIK.name}:
            raise ValueError(
                f"GATEWAY_HOSTS is for GATEWAY={TRAEFIK.name}; with {self.gateway}, set EDGE_ALLOWED_HOSTS"
            )
        return self

    @model_validator(mode="after")
    def _files_are_a_pair(self) -> Self:
        if (self.gateway_tls_cert is None) != (self.gateway_tls_key is None):
            raise ValueError("GATEWAY_TLS_CERT and GATEWAY_TLS_KEY belong together: set both or neither")
        return self


def settings_for(services: Sequence[Service]) -> type[Settings]:
    """The settings of a mesh of these services."""
    fields: dict[str, object] = {
        variable.lower(): (Port, Field(port, description=_port_of(service, variable)))
        for service in services
        for variable, port in service.ports.items()
    }
    known = AfterValidator(partial(_check_names, [service.name for service in services]))
    fields["without"] = (Annotated[Names, known], ())
    return create_model("LocalSettings", __base__=Settings, **fields)  # type: ignore[call-overload, no-any-return] # names


def _port_of(service: Service, variable: str) -> str:
    return f"{'gRPC port' if variable == service.grpc_port_variable else 'Port'} of {service.name}."


def load(services: Sequence[Service]) -> Settings:
    """Reads the settings of the local mesh from the environment; see `read`."""
    return read(settings_for(services))


def read(settings_class: type[AnySettings]) -> AnySettings:
    """Reads the settings of a class from the environment.

    Raises:
        InvalidSettings: a variable has an invalid value, or two ports are the same.
    """
    try:
        return settings_class()
    except ValidationError as error:
        lines = [_explain(settings_class, detail["loc"], detail["msg"]) for detail in error.errors()]
        raise InvalidSettings("\n".join(lines)) from error


def _explain(settings_class: type[BaseSettings], location: tuple[int | str, ...], message: str) -> str:
    reason = message.removeprefix("Value error, ")
    if not location:
        return reason
    field = str(location[0])
    own = REASONS.get(settings_class.model_fields[field].annotation)
    return f"{field.upper()}={os.environ.get(field.upper(), '')}: {own or reason[0].lower() + reason[1:]}"
