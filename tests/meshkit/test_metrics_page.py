"""The page of metrics on an address of its own: formats, compression, limits, and the whole life of its process."""

from __future__ import annotations

import asyncio
import logging
import signal
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import aiohttp
import pytest

from meshkit.http.metrics_page import serving_metrics
from meshkit.telemetry.prometheus import MetricsPage
from tests.meshkit.http_server import Client
from tests.service_process import running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
PLAIN = "text/plain; version=0.0.4; charset=utf-8"


@asynccontextmanager
async def page(caplog: pytest.LogCaptureFixture) -> AsyncIterator[int]:
    """Serves an empty page. Yields its port."""
    caplog.set_level(logging.INFO, "meshkit.metrics")
    async with serving_metrics(MetricsPage(), "127.0.0.1:0"):
        yield next(vars(record)["port"] for record in caplog.records if record.name == "meshkit.metrics")


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("", PLAIN),
        ("*/*", PLAIN),
        ("text/plain;version=0.0.4", PLAIN),
        ("text/plain;version=1.0.0", "text/plain; version=1.0.0; charset=utf-8; escaping=underscores"),
        ("application/openmetrics-text;version=1.0.0,*/*;q=0.1", f"{OPENMETRICS}; escaping=underscores"),
        ("application/openmetrics-text", OPENMETRICS),
    ],
)
async def test_a_page_has_the_format_that_is_accepted(
    accept: str, media_type: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with page(caplog) as port, aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http:
        async with http.get("/metrics", headers={"Accept": accept}) as answer:
            assert (answer.status, answer.headers["Content-Type"]) == (200, media_type)
            assert answer.headers["Content-Encoding"] == "gzip"  # which aiohttp accepts
        async with http.get("/metrics", headers={"Accept": accept, "Accept-Encoding": "br"}) as answer:
            assert "Content-Encoding" not in answer.headers
            assert (await answer.text()).endswith("# EOF\n" if "openmetrics" in accept else "")
        async with http.head("/metrics") as answer:
            assert (answer.status, await answer.read()) == (200, b"")
        async with http.post("/metrics") as answer:
            assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")


async def test_a_page_refuses_what_the_edge_refuses(caplog: pytest.LogCaptureFixture) -> None:
    async with page(caplog) as port:
        client = Client(*await asyncio.open_connection("127.0.0.1", port))
        await client.send(b"GET / HTTP/1.1\r\n" + b"a:b\r\n" * 200)
        answer = await client.answer()
        assert (answer.status, answer.headers["content-type"]) == (431, "application/problem+json")
        client.writer.close()
        await client.writer.wait_closed()


@pytest.mark.timeout(60)  # it starts a process
async def test_a_page_is_there_before_its_service_serves_and_while_it_drains(tmp_path: Path) -> None:
    settings = {"database_url": "postgresql://nobody@127.0.0.1:1/none", "metrics_listen": "127.0.0.1:0"}
    async with running("inventory", drain_seconds="60", **settings) as process, aiohttp.ClientSession() as http:
        url = f"http://127.0.0.1:{(await process.log_record('metrics on'))['port']}/metrics"
        await process.log_record("NOT_SERVING")
        for line in ("listening on", "draining"):
            await process.log_record(line)
            async with http.get(url) as answer:
                assert answer.status == 200
            process.signal(signal.SIGTERM)
        assert await process.exit_status() == 0
