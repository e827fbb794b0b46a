"""The addresses that services listen on and call by default are those that are declared."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

import pytest

from localmesh.services import Service, read_services

if TYPE_CHECKING:
    from pydantic_settings import BaseSettings


def settings_of(module: str) -> type[BaseSettings]:
    found: type[BaseSettings] = import_module(f"{module}.settings").Settings
    return found


@pytest.mark.parametrize("service", read_services(), ids=lambda service: service.name)
def test_the_defaults_of_addresses_are_the_declared_ports(service: Service) -> None:
    fields = settings_of(service.name).model_fields
    assert fields["listen"].default == f"127.0.0.1:{service.port}"
    assert "grpc_listen" not in fields or not fields["grpc_listen"].default, "two processes would want one port"
    called = {f"{other.prefix.lower()}target": other for other in read_services() if other.name in service.after}
    assert {name: field.default for name, field in fields.items() if name.endswith("_target")} == {
        name: f"127.0.0.1:{other.port}" for name, other in called.items()
    }
