"""Faults: a service that is frozen or killed, Ctrl-C under load, and all processes killed at once."""

from __future__ import annotations

import asyncio
import sys
import time
import uuid
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import psutil
import pytest

from tests.e2e.local_mesh import Answer, LocalMesh, Mesh, call, order

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(90)]

PRODUCT = "/v1/products/TEA-0001"


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalMesh]:
    """A mesh in which every test leaves every process running and in use."""
    with LocalMesh(tmp_path_factory.mktemp("state")).running() as running:
        yield running


async def until(condition: Callable[[], Awaitable[bool]], seconds: float) -> float:
    """Waits for a condition and returns how long it took; fails after `seconds`."""
    started = time.monotonic()
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.05)
    return time.monotonic() - started


def priced(mesh: Mesh) -> Callable[[], Awaitable[bool]]:
    async def is_priced() -> bool:
        return (await call(mesh, "GET", PRODUCT)).body["price"] is not None

    return is_priced


async def test_frozen_pricing_degrades_reads_and_is_used_again_after_it_continues(mesh: Mesh) -> None:
    assert await priced(mesh)()
    with mesh.frozen("pricing"):
        degraded = await call(mesh, "GET", PRODUCT, headers={"X-Request-Timeout-Ms": "1500"})
        assert (degraded.status, degraded.body["price"]) == (200, None)
        assert degraded.body["problems"] == [
            {"service": "pricing", "code": "DEADLINE_EXCEEDED", "reason": "DEADLINE_EXCEEDED"}
        ]
        strict = await call(mesh, "GET", f"{PRODUCT}?strict=true", headers={"X-Request-Timeout-Ms": "300"})
        assert (strict.status, strict.body["reason"]) == (504, "DEADLINE_EXCEEDED")
    await until(priced(mesh), 2)


async def test_killed_pricing_is_reported_and_restarted_while_the_others_serve(mesh: LocalMesh) -> None:
    victim = mesh.pid("pricing")
    psutil.Process(victim).kill()
    answers = [await call(mesh, "GET", PRODUCT)]
    assert "restarting it" in mesh.read_until("pricing")
    await asyncio.to_thread(mesh.read_until, "pricing is ready again")
    await until(priced(mesh), 10)
    answers.append(await call(mesh, "GET", PRODUCT))

    assert {answer.status for answer in answers} == {200}
    assert mesh.pid("pricing") != victim


async def test_frozen_inventory_is_an_error_within_the_budget_and_a_repeat_places_the_order_once(mesh: Mesh) -> None:
    key, before = str(uuid.uuid4()), (await call(mesh, "GET", PRODUCT)).body["stock"]
    with mesh.frozen("inventory"):
        read = await call(mesh, "GET", PRODUCT, headers={"X-Request-Timeout-Ms": "300"})
        write = await call(
            mesh,
            "POST",
            "/v1/orders",
            json={"lines": [{"sku": "TEA-0001", "quantity": 1}]},
            headers={"X-Request-Timeout-Ms": "300", "Idempotency-Key": key},
        )
        assert (read.status, write.status) == (504, 504)
    again = await order(mesh, key, {"TEA-0001": 1})
    assert again.status == 201
    assert (await call(mesh, "GET", PRODUCT)).body["stock"]["reserved"] == before["reserved"] + 1


async def load(mesh: LocalMesh, answers: list[Answer], failures: list[str]) -> None:
    """Sends reads and orders over one connection until the edge accepts no more connections."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=15)) as session:
        while True:
            body = {"lines": [{"sku": "TEA-0001", "quantity": 1}]}
            for method, path, json in (("GET", PRODUCT, None), ("POST", "/v1/orders", body)):
                try:
                    async with session.request(method, mesh.edge + path, json=json) as response:
                        answers.append(Answer(response.status, response.headers.copy(), await response.json()))
                except aiohttp.ClientConnectorError:
                    return
                except aiohttp.ClientError as error:
                    failures.append(f"{method} {error!r}")


async def test_ctrl_c_under_load_completes_requests_in_flight_and_exports_every_span(tmp_path: Path) -> None:
    file, program = tmp_path / "spans", tmp_path / "sink"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {Path(__file__).with_name("span_sink.py")} {file} "$@"\n')
    program.chmod(0o755)
    answers: list[Answer] = []
    failures: list[str] = []
    with LocalMesh(tmp_path / "state", {"JAEGER_BIN": str(program)}).running() as mesh:
        async with asyncio.TaskGroup() as group:
            for _ in range(16):
                group.create_task(load(mesh, answers, failures))
            while len(answers) < 200:
                await asyncio.sleep(0.05)
            status = await asyncio.to_thread(mesh.stop)

    assert status == 0
    assert "Traceback" not in "".join(mesh.printed)
    logs = "".join(path.read_text() for path in (tmp_path / "state" / "logs").iterdir())
    assert "Traceback" not in logs
    assert {answer.status for answer in answers} <= {200, 201}
    spans = Counter(tuple(line.split(" ", 1)) for line in file.read_text().splitlines())
    roots = {trace_id for trace_id, name in spans if name in {"GET /v1/products/{sku}", "POST /v1/orders"}}
    assert roots == {answer.trace_id for answer in answers}, failures
    backends = Counter(name for _, name in spans.elements() if name.endswith(("/ReserveStock", "/CreateQuote")))
    orders = sum(answer.status == 201 for answer in answers)
    assert set(backends.values()) == {2 * orders}, "a client and a server span for every order"


@pytest.mark.timeout(120)
async def test_killing_everything_loses_no_order_and_oversells_nothing(tmp_path: Path) -> None:
    environment = {"INVENTORY_RESERVATION_TTL_SECONDS": "5", "INVENTORY_SWEEP_SECONDS": "0.2"}
    mesh = LocalMesh(tmp_path / "state", environment)
    with mesh.running():
        before = (await call(mesh, "GET", PRODUCT)).body["stock"]
        orders: dict[str, str] = {}
        committed: set[str] = set()

        async def shop() -> None:
            while True:
                key = str(uuid.uuid4())
                response = await order(mesh, key, {"TEA-0001": 1})
                orders[key] = response.body["id"]
                if len(orders) % 2:
                    done = await call(mesh, "POST", f"{response.headers['Location']}/commit")
                    committed.add(done.body["id"])

        shoppers = [asyncio.create_task(shop()) for _ in range(8)]
        while len(orders) < 60:
            await asyncio.sleep(0.02)
        mesh.kill_everything()
        await asyncio.gather(*shoppers, return_exceptions=True)

    with LocalMesh(tmp_path / "state", environment).running() as mesh:
        states = Counter[str]()
        for key, order_id in orders.items():
            found = await call(mesh, "GET", f"/v1/orders/{order_id}")
            assert found.status == 200, f"order {key} was confirmed and is lost"
            assert found.body["state"] == "COMMITTED" or order_id not in committed
            states[found.body["state"]] += 1
        assert states["COMMITTED"] >= len(committed)

        async def nothing_reserved() -> bool:
            return bool((await call(mesh, "GET", PRODUCT)).body["stock"]["reserved"] == 0)

        await until(nothing_reserved, 30)
        after = (await call(mesh, "GET", PRODUCT)).body["stock"]
        sold = before["on_hand"] - after["on_hand"]
        assert len(committed) <= sold <= len(committed) + len(shoppers), "a commit in flight may have arrived"
        assert after["available"] == after["on_hand"] >= 0
