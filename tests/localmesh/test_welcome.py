"""The commands that `make up` prints, run by a real shell against a server that responds like the edge."""

import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from localmesh.settings import Settings
from localmesh.welcome import order, product, trace, welcome

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


class Server(ThreadingHTTPServer):
    requests: list[tuple[str, str, bytes]]
    keys: list[str | None]

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    """Records each request, and responds with a trace id in a header."""

    server: Server

    def do_GET(self) -> None:
        self._respond(b"")

    def do_POST(self) -> None:
        self._respond(self.rfile.read(int(self.headers["Content-Length"])))

    def _respond(self, body: bytes) -> None:
        self.server.requests.append((self.command, self.path, body))
        self.server.keys.append(self.headers["Idempotency-Key"])
        self.send_response(200)
        self.send_header("x-trace-id", TRACE)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def edge_server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as server:
        server.requests, server.keys = [], []
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def shell(command: str) -> str:
    return subprocess.run(
        ["/bin/sh", "-c", command], check=True, capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"}
    ).stdout


def test_the_three_commands_get_a_product_place_an_order_and_print_the_address_of_its_trace(tmp_path: Path) -> None:
    headers = tmp_path / "a directory" / "order.headers"
    headers.parent.mkdir()
    with edge_server() as server:
        for command in (product(server.base), order(server.base, str(headers))):
            assert shell(command) == "{}\n"
        assert shell(trace("http://127.0.0.1:16686", str(headers))) == f"http://127.0.0.1:16686/trace/{TRACE}\n"
        read, write = server.requests
    assert read[:2] == ("GET", "/v1/products/TEA-0001?currency=JPY&quantity=12")
    assert write[:2] == ("POST", "/v1/orders")
    assert json.loads(write[2]) == {"currency": "EUR", "lines": [{"sku": "TEA-0001", "quantity": 2}]}


def test_each_mesh_prints_an_order_with_its_own_key() -> None:
    one, other = (order("http://127.0.0.1:8080", "headers") for _ in range(2))
    keys = [re.findall(r"Idempotency-Key: ([0-9a-f]{32})'", command) for command in (one, other)]
    assert len(keys[0]) == 1
    assert keys[0] != keys[1]


def test_the_commands_accept_any_certificate_of_an_edge_with_tls() -> None:
    edge = "https://127.0.0.1:8080"
    assert [command.partition(" -w")[0] for command in (product(edge), order(edge, "headers"))] == ["curl -sk"] * 2


def test_the_welcome_contains_the_pages_the_logs_and_the_three_commands(tmp_path: Path) -> None:
    settings = Settings(traces_port=1004, state_dir=tmp_path)
    text = welcome("http://127.0.0.1:1001", settings, "127.0.0.1:1007")
    assert "http://127.0.0.1:1001/docs" in text
    assert "gRPC     127.0.0.1:1007" in text
    assert "http://127.0.0.1:1004" in text
    assert str(tmp_path / "logs") in text
    assert product("http://127.0.0.1:1001") in text
    assert trace("http://127.0.0.1:1004", str(tmp_path / "order.headers")) in text


@pytest.mark.parametrize("reload", [True, False])
def test_the_welcome_tells_whether_an_edit_restarts_a_service(tmp_path: Path, *, reload: bool) -> None:
    text = welcome("http://127.0.0.1:1001", Settings(state_dir=tmp_path, reload=reload))
    assert ("\n  reload   on: an edit restarts its service\n" in text) is reload
