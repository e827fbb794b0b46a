"""The settings of the cluster."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from localmesh.settings import Port

EDGE_PORT, TRACES_PORT = 8080, 16686  # as in deploy/kind/cluster.yaml and in the trace links of the overlay


class KindSettings(BaseSettings):
    """Read from the environment variables of the same names; an empty variable counts as unset."""

    model_config = SettingsConfigDict(frozen=True, env_ignore_empty=True)

    edge_port: Port = EDGE_PORT
    traces_port: Port = TRACES_PORT
    kind_node_image: str | None = None
    """The image of the cluster's node; by default the one that belongs to the release of kind."""

    @property
    def ports(self) -> dict[str, int]:
        """The port numbers by the variable that sets each."""
        return {"EDGE_PORT": self.edge_port, "TRACES_PORT": self.traces_port}

    @model_validator(mode="after")
    def _ports_differ(self) -> Self:
        if self.edge_port == self.traces_port:
            raise ValueError(f"EDGE_PORT and TRACES_PORT are both {self.edge_port}: give each its own port")
        return self
