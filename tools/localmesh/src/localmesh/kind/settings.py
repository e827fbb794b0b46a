"""The settings of the cluster."""

from __future__ import annotations

import itertools
from typing import Self

from pydantic import model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from localmesh.settings import Port

# As in deploy/kind/cluster.yaml; the last also as in the trace links of the overlay.
EDGE_PORT, EDGE_GRPC_PORT, TRACES_PORT = 8080, 50050, 16686


class KindSettings(BaseSettings):
    """Read from the environment variables of the same names; an empty variable counts as unset."""

    model_config = SettingsConfigDict(frozen=True, env_ignore_empty=True)

    edge_port: Port = EDGE_PORT
    edge_grpc_port: Port = EDGE_GRPC_PORT
    traces_port: Port = TRACES_PORT
    kind_node_image: str | None = None
    """The image of the cluster's node; by default the one that belongs to the release of kind."""

    @property
    def ports(self) -> dict[str, int]:
        """The port numbers by the variable that sets each."""
        return {
            "EDGE_PORT": self.edge_port,
            "EDGE_GRPC_PORT": self.edge_grpc_port,
            "TRACES_PORT": self.traces_port,
        }

    @model_validator(mode="after")
    def _ports_differ(self) -> Self:
        for (one, number), (other, same) in itertools.combinations(self.ports.items(), 2):
            if number == same:
                raise ValueError(f"{one} and {other} are both {number}: give each its own port")
        return self
