"""Real clients of other makers against the edge: of Node.js, a page in Chromium, buf curl, grpcurl and curl.

Each reads the same product, and the same error with its reason.
"""

# ruff: noqa: ASYNC240 - the files are small and the test's own
from __future__ import annotations

import asyncio
import base64
import json
import shutil
import sys
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from aiohttp import web
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.rpc import code_pb2, error_details_pb2, status_pb2

from tests.browser import browsing, needs_browser
from tests.clients.node import FOLDER, install, program
from tests.edge.mesh import Mesh, mesh
from tools.protos import describe

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]

STOREFRONT = "aiomesh.storefront.v1.StorefrontService"
NOT_FOUND = code_pb2.Code.Value("NOT_FOUND")
PROGRAMS = Path(sys.executable).parent


@pytest.fixture(scope="module", autouse=True)
def _packages() -> None:
    install()


@pytest.fixture(scope="module")
def descriptors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the descriptors of our protos and of the details of errors."""
    path = tmp_path_factory.mktemp("protos") / "image.binpb"
    describe(path)
    image = FileDescriptorSet.FromString(path.read_bytes())
    names = {file.name for file in image.file}
    for module in (any_pb2, duration_pb2, error_details_pb2, status_pb2):
        if module.DESCRIPTOR.name not in names:
            module.DESCRIPTOR.CopyToProto(image.file.add())
    path.write_bytes(image.SerializeToString())
    return path


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def page(descriptors: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """The URL of a page with its clients in one script; its server is another origin than the edge."""
    folder = tmp_path_factory.mktemp("page")
    encoded = base64.b64encode(descriptors.read_bytes()).decode()
    (folder / "index.html").write_text(
        f'<pre id="descriptors">{encoded}</pre><script type="module" src="page.js"></script>'
    )
    bundle = ("page.mjs", "--bundle", "--format=esm", f"--outfile={folder / 'page.js'}", "--log-level=error")
    await run(*program("node"), "node_modules/.bin/esbuild", *bundle)
    app = web.Application()
    app.router.add_static("/", folder)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory, page: str) -> AsyncIterator[Mesh]:
    async with mesh(tmp_path_factory.mktemp("shop"), grpc=True, cors_origins=(page,)) as shop:
        yield shop


async def run(*command: str) -> str:
    """The output of a program, which must succeed."""
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=PIPE, cwd=FOLDER)
    out, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return out.decode()


@pytest.mark.parametrize(
    "client",
    [
        "connect-node Connect",
        "connect-node Connect, binary",
        "connect-node gRPC-Web",
        "connect-node gRPC",
        "grpc-js",
        "grpc-web",
    ],
)
async def test_a_client_of_node_reads_a_product_and_an_error(shop: Mesh, descriptors: Path, client: str) -> None:
    address = shop.grpc_address if client in {"connect-node gRPC", "grpc-js"} else shop.url
    found = json.loads(await run(*program("node"), "node_clients.mjs", client, address, str(descriptors)))
    assert (found["sku"], found["code"], found["reason"]) == ("TEA-0001", NOT_FOUND, "UNKNOWN_SKU"), found


@needs_browser
async def test_a_page_of_another_origin_calls_the_edge_without_a_gateway(shop: Mesh, page: str, tmp_path: Path) -> None:
    async with browsing(tmp_path) as tab:
        await tab.show(f"{page}/index.html?edge={shop.url}", "window.done")
        found: dict[str, Any] = await tab.value("window.found")
    for name in ("connect", "get", "web"):
        trace_id = found[name].pop("traceId")
        assert found[name] == {"sku": "TEA-0001", "code": NOT_FOUND, "reason": "UNKNOWN_SKU"}
        (root,) = [span for span in await shop.spans(trace_id) if span.parent is None]
        assert root.name == f"{STOREFRONT}/GetProduct"


@pytest.mark.parametrize("protocol", ["connect", "grpcweb", "grpc"])
async def test_buf_curl_reads_a_product(shop: Mesh, descriptors: Path, protocol: str) -> None:
    address = f"http://{shop.grpc_address}" if protocol == "grpc" else shop.url
    options = ["--http2-prior-knowledge"] if protocol == "grpc" else []
    command = ("curl", "--protocol", protocol, *options, "--schema", str(descriptors), "--data", '{"sku": "TEA-0001"}')
    found = json.loads(await run(str(PROGRAMS / "buf"), *command, f"{address}/{STOREFRONT}/GetProduct"))
    assert found["product"]["sku"] == "TEA-0001"


@pytest.mark.go
@pytest.mark.skipif(shutil.which("grpcurl") is None, reason="needs grpcurl")
async def test_grpcurl_lists_describes_and_calls_without_protos(shop: Mesh) -> None:
    """As in the README."""
    assert STOREFRONT in (await grpcurl(shop.grpc_address, "list")).split()
    assert "rpc GetProduct (" in await grpcurl(shop.grpc_address, "describe", STOREFRONT)
    found = json.loads(await grpcurl("-d", '{"sku": "TEA-0001"}', shop.grpc_address, f"{STOREFRONT}/GetProduct"))
    assert found["product"]["sku"] == "TEA-0001"
    refused = ("-format-error", "-d", '{"sku": "NO-1"}', shop.grpc_address, f"{STOREFRONT}/GetProduct")
    found = json.loads(await grpcurl(*refused, code=NOT_FOUND))
    assert (found["code"], found["details"][0]["reason"]) == (NOT_FOUND, "UNKNOWN_SKU")


async def grpcurl(*arguments: str, code: int = 0) -> str:
    """What grpcurl prints about a call that ends with this code of gRPC, which it adds to 64 for its exit status."""
    process = await asyncio.create_subprocess_exec("grpcurl", "-plaintext", *arguments, stdout=PIPE, stderr=PIPE)
    out, errors = await process.communicate()
    assert process.returncode == (64 + code if code else 0), errors.decode()
    return (errors if code else out).decode()


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
async def test_curl_reads_a_product_and_an_error_over_connect(shop: Mesh) -> None:
    url = f"{shop.url}/{STOREFRONT}/GetProduct"
    json_type = ("-H", "Content-Type: application/json")
    found = json.loads(await run("curl", "-s", "--compressed", *json_type, "-d", '{"sku": "TEA-0001"}', url))
    assert found["product"]["sku"] == "TEA-0001"
    found = json.loads(await run("curl", "-s", *json_type, "-d", '{"sku": "NO-1"}', url))
    assert found["code"] == "not_found"
