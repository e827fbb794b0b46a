"""Each backend has reflection, so tools such as grpcurl can call it without the protos."""

from __future__ import annotations

import asyncio
from importlib import import_module
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pool, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from localmesh.services import Service, read_services
from meshkit.server.build import build_server
from meshkit.server.health import Health
from meshkit.testing import SpanCapture, start_server
from tests.meshkit.echo import always_healthy

SERVICES = [service for service in read_services() if service.protocol == "grpc"]


def reflect(address: str, service: str) -> tuple[set[str], Any]:
    """The result of reflection: the names of the services, and the descriptor of one of them."""
    with grpc.insecure_channel(address) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        pool = descriptor_pool.DescriptorPool(database)
        return set(database.get_services()), pool.FindServiceByName(service)


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)
async def test_a_service_can_be_called_by_reflection(service: Service) -> None:
    name, short = service.grpc_name, service.grpc_name.rpartition(".")[2]
    generated = import_module(f"aiomesh.{service.name}.v1.{service.name}_service_pb2_grpc")
    add, servicer = getattr(generated, f"add_{short}Servicer_to_server"), getattr(generated, f"{short}Servicer")
    server = build_server(
        services={name: lambda built: add(servicer(), built)},
        health=Health(name, always_healthy),
        telemetry=SpanCapture(name).telemetry,
    )
    async with start_server(server) as address:
        names, descriptor = await asyncio.to_thread(reflect, address, name)
    assert names == {name, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}
    methods = {method.name: message_factory.GetMessageClass(method.input_type) for method in descriptor.methods}
    assert methods.keys() == {method for method in vars(servicer) if not method.startswith("_")}
    assert all(request().SerializeToString() == b"" for request in methods.values())
