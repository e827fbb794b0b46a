"""One of two replicas of inventory is frozen: it accepts calls and never responds."""

# ruff: noqa: N802 - the names of RPCs are gRPC's
from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from inventory.servicer import InventoryServicer
from meshkit.testing import FakeClock, SpanCapture
from tests.edge.mesh import Mesh, mesh, seed, start_inventory

if TYPE_CHECKING:
    from pathlib import Path

READERS, READS = 24, 8


class Frozen(InventoryServicer):
    """Responds to no lookup."""

    async def GetStock(self, request: Any, context: Any) -> Any:
        await asyncio.Event().wait()

    async def BatchGetStock(self, request: Any, context: Any) -> Any:
        await asyncio.Event().wait()


async def passed(shop: Mesh, **headers: str) -> int:
    """How many of the reads of all readers pass; each reads one product after the other."""

    async def read(number: int) -> int:
        passed = 0
        for _ in range(READS):
            path = f"/v1/products/TEA-{number + 1:04}"
            passed += (await shop.get(path, headers={"X-Request-Timeout-Ms": "500"} | headers)).status == 200
        return passed

    return sum(await asyncio.gather(*map(read, range(READERS))))


async def test_with_a_frozen_replica_reads_pass_in_batches_too(tmp_path: Path) -> None:
    """Half of the reads, on average. Batches are few, so chance decides more of their share than of single calls'."""
    url, capture = await seed(tmp_path / "inventory.db"), SpanCapture("inventory")
    async with (
        start_inventory(url, capture, FakeClock()) as alive,
        start_inventory(url, capture, FakeClock(), Frozen) as frozen,
        mesh(tmp_path, inventory_target=f"ipv4:{alive},{frozen}") as shop,
    ):
        assert await passed(shop, baggage="goes=alone") >= READERS * READS / 3
        assert await passed(shop) >= READERS * READS / 4
