"""Both backends describe themselves, so that tools such as grpcurl can call them without the protos."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pool, json_format, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from aiomesh.inventory.v1 import inventory_service_pb2_grpc
from aiomesh.pricing.v1 import pricing_service_pb2_grpc
from meshkit.server.build import build_server
from meshkit.server.health import Health
from meshkit.testing import SpanCapture, listening
from tests.meshkit.echo import always_healthy

SERVICES: dict[str, tuple[Any, Any]] = {
    "aiomesh.inventory.v1.InventoryService": (
        inventory_service_pb2_grpc.add_InventoryServiceServicer_to_server,
        inventory_service_pb2_grpc.InventoryServiceServicer,
    ),
    "aiomesh.pricing.v1.PricingService": (
        pricing_service_pb2_grpc.add_PricingServiceServicer_to_server,
        pricing_service_pb2_grpc.PricingServiceServicer,
    ),
}


def described(address: str, service: str) -> tuple[set[str], Any]:
    """What a tool learns by reflection alone: the names of the services, and the descriptor of one of them."""
    with grpc.insecure_channel(address) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        pool = descriptor_pool.DescriptorPool(database)
        return set(database.get_services()), pool.FindServiceByName(service)


@pytest.mark.parametrize("service", SERVICES)
async def test_a_service_can_be_called_by_what_it_tells_of_itself(service: str) -> None:
    add, servicer = SERVICES[service]
    server = build_server(
        services={service: lambda built: add(servicer(), built)},
        health=Health(service, always_healthy),
        telemetry=SpanCapture(service).telemetry,
    )
    async with listening(server) as address:
        names, descriptor = await asyncio.to_thread(described, address, service)
    assert names == {service, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}
    request: Any = message_factory.GetMessageClass(descriptor.methods[0].input_type)()
    assert json_format.ParseDict({"sku": "TEA-0001"}, request).sku == "TEA-0001"
