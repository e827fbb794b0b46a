"""What a user may choose about the local mesh: ports, the state directory, the trace backend."""

import itertools
import os
import shutil
from pathlib import Path
from typing import Annotated, Self, TypeVar

from pydantic import AfterValidator, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class InvalidSettings(Exception):
    """Environment variables that make no mesh; its text has one line for each."""


def _executable(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        raise ValueError("no such program")
    return found


def _resolved(path: Path) -> Path:
    return path.expanduser().resolve()


Port = Annotated[int, Field(ge=1, le=65535)]
Executable = Annotated[str, AfterValidator(_executable)]
Chosen = TypeVar("Chosen", bound=BaseSettings)
Directory = Annotated[Path, AfterValidator(_resolved)]


class Settings(BaseSettings):
    """Read from the environment variables of the same names; an empty variable counts as unset."""

    model_config = SettingsConfigDict(frozen=True, env_ignore_empty=True)

    edge_port: Port = 8080
    inventory_port: Port = 50051
    pricing_port: Port = 50052
    traces_port: Port = 16686
    otlp_port: Port = 4317
    state_dir: Directory = Field(default=Path(".localmesh"), validate_default=True)
    jaeger_bin: Executable | None = Field(default_factory=lambda: shutil.which("jaeger"))
    """The Jaeger v2 to run instead of tracebox: by default the one on the PATH, if there is one."""

    @property
    def ports(self) -> dict[str, int]:
        """The port numbers, each under the variable that moves it."""
        return {
            "EDGE_PORT": self.edge_port,
            "INVENTORY_PORT": self.inventory_port,
            "PRICING_PORT": self.pricing_port,
            "TRACES_PORT": self.traces_port,
            "OTLP_PORT": self.otlp_port,
        }

    @model_validator(mode="after")
    def _ports_differ(self) -> Self:
        for (one, number), (other, same) in itertools.combinations(self.ports.items(), 2):
            if number == same:
                raise ValueError(f"{one} and {other} are both {number}: give each its own port")
        return self


def load() -> Settings:
    """Reads the settings of the local mesh from the environment; see `read`."""
    return read(Settings)


def read(chosen: type[Chosen]) -> Chosen:
    """Reads settings of a class from the environment.

    Raises:
        InvalidSettings: a variable has a bad value, or two ports are the same.
    """
    try:
        return chosen()
    except ValidationError as error:
        lines = [_explain(detail["loc"], detail["msg"]) for detail in error.errors()]
        raise InvalidSettings("\n".join(lines)) from error


def _explain(location: tuple[int | str, ...], message: str) -> str:
    reason = message.removeprefix("Value error, ")
    if not location:
        return reason
    variable = str(location[0]).upper()
    return f"{variable}={os.environ.get(variable, '')}: {reason[0].lower()}{reason[1:]}"
