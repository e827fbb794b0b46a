"""Each RPC is one line of JSON, whether or not its trace is sampled."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from aiomesh.inventory.v1 import inventory_service_pb2, inventory_service_pb2_grpc
from tests.service_process import channel_to, running

if TYPE_CHECKING:
    from pathlib import Path

GET_STOCK = "aiomesh.inventory.v1.InventoryService/GetStock"
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize(("sku", "status"), [("TEA-0001", "OK"), ("NO-1", "NOT_FOUND")])
@pytest.mark.parametrize("sampled", ["01", "00"])
async def test_the_log_line_of_an_rpc_has_its_status_peer_and_trace(
    tmp_path: Path, sku: str, status: str, sampled: str
) -> None:
    async with (
        running("inventory", database_url=f"sqlite:///{tmp_path / 'i.db'}") as process,
        channel_to(process) as channel,
    ):
        health: Any = health_pb2_grpc.HealthStub(channel)
        await health.Check(health_pb2.HealthCheckRequest())
        request, trace = inventory_service_pb2.GetStockRequest(sku=sku), f"00-{TRACE}-{PARENT}-{sampled}"
        stub = inventory_service_pb2_grpc.InventoryServiceStub(channel)
        await stub.GetStock(request, metadata=[("traceparent", trace)]).code()
        await process.log_record(f"GetStock {status}")
    [line] = [record for record in map(json.loads, process.lines) if record["logger"] == "meshkit.rpc"]
    assert fields_of(line) == {"method": GET_STOCK, "status": status, "trace_id": TRACE, "service": "inventory"}
    assert line["duration_ms"] > 0
    assert line["peer"].startswith("ipv4:127.0.0.1:")
    assert len(line["span_id"]) == 16
    assert line["span_id"] != PARENT


def fields_of(line: dict[str, Any]) -> dict[str, Any]:
    return {name: line[name] for name in ("method", "status", "trace_id", "service")}
