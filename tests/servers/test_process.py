"""`python -m api_edge` on each server: SIGTERM, and a server that is not installed."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

import pytest

from tests.edge.test_process import Slow, edge, read
from tests.meshkit.test_extras import run
from tests.servers.shop import SERVERS

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(120)  # they start processes


@pytest.mark.parametrize("server", SERVERS)
async def test_sigterm_ends_the_process_with_status_0_after_its_last_response(tmp_path: Path, server: str) -> None:
    slow = Slow()
    async with edge(tmp_path, slow.servicer(), EDGE_SERVER=server, EDGE_LISTEN="[::]:0") as shop:
        answer = asyncio.create_task(read(shop))
        await slow.reached.wait()
        shop.process.signal(signal.SIGTERM)
        await shop.process.log_record("draining")
        slow.free.set()
        assert (await answer)[0] == 200
        assert await shop.exit_status() == 0
    (record,) = [record for record in shop.log if record["logger"] == "api_edge.access"]
    assert (record["status"], record["peer"].rpartition(":")[0]) == (200, "127.0.0.1")
    assert shop.log[-1]["message"] == "stopped"


@pytest.mark.parametrize("server", SERVERS[1:])
def test_a_server_that_is_not_installed_ends_the_start_in_one_line(
    monkeypatch: pytest.MonkeyPatch, server: str
) -> None:
    monkeypatch.setenv("EDGE_SERVER", server)
    program = (
        "from api_edge.settings import Settings; from meshkit.config import load_settings; load_settings(Settings)"
    )
    done = run(program, server)
    assert done.returncode == 2
    assert done.stderr == f"EDGE_SERVER: {server} is not installed: pip install 'meshkit[{server}]'\n"


@pytest.mark.parametrize("server", SERVERS[1:])
def test_a_server_that_is_not_installed_cannot_be_imported(server: str) -> None:
    done = run(f"import meshkit.http.on_{server}", server)
    assert f"pip install 'meshkit[{server}]'" in done.stderr.splitlines()[-1]


def test_a_server_that_is_not_chosen_is_not_imported() -> None:
    done = run(
        "import sys, api_edge.app; print([name for name in sys.modules if 'hyper' in name or 'granian' in name])"
    )
    assert done.stdout == "[]\n", done.stderr
