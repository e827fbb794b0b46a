"""Tests for each declared service of a running mesh, including a new one from the template."""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING, Any

import aiohttp
import grpc
import pytest
from google.protobuf import descriptor_pool, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from localmesh.services import Service, read_services
from tests.e2e.local_mesh import pids_of_table, spans_of

if TYPE_CHECKING:
    from tests.e2e.local_mesh import LocalMesh

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(60)]

SECONDS = 2.0
"""The time within which a trace is complete in the query API."""


def first_method(address: str, service: Service) -> tuple[str, Any]:
    """The full name of the first method that a service describes by reflection, and a request for it."""
    with grpc.insecure_channel(address) as channel:
        pool = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
        method = pool.FindServiceByName(service.grpc_name).methods[0]
        return f"{service.grpc_name}/{method.name}", message_factory.GetMessageClass(method.input_type)(sku="TEA-0001")


def test_the_table_names_every_declared_service(shared_mesh: LocalMesh) -> None:
    assert {service.name for service in read_services()} < set(pids_of_table(shared_mesh.printed))


@pytest.mark.parametrize(
    "service",
    [service for service in read_services() if service.has_api],
    ids=lambda service: service.name,
)
async def test_a_call_of_its_first_method_is_in_the_trace_backend(shared_mesh: LocalMesh, service: Service) -> None:
    variable = service.grpc_port_variable if service.grpc_port else service.port_variable
    address, trace_id = f"127.0.0.1:{shared_mesh.ports[variable]}", secrets.token_hex(16)
    name, request = await asyncio.to_thread(first_method, address, service)
    metadata = (("traceparent", f"00-{trace_id}-{secrets.token_hex(8)}-01"),)
    async with grpc.aio.insecure_channel(address) as channel:
        call: Any = channel.unary_unary(f"/{name}", request_serializer=type(request).SerializeToString)
        response = call(request, metadata=metadata)
        code = (await response.code()).name
    async with aiohttp.ClientSession() as session, asyncio.timeout(SECONDS):
        found: list[Any] = []
        while not found:
            await asyncio.sleep(0.05)
            found = [span for span in await spans_of(session, shared_mesh, trace_id) if span["operationName"] == name]
    (server,) = found
    assert server["process"]["serviceName"] == service.name
    assert {"key": "rpc.response.status_code", "type": "string", "value": code} in server["tags"]
