"""The backends and the three servers, which the tests of a module share."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
import trustme

from tests.edge.test_disconnect import Backends
from tests.servers.shop import SERVERS, Edge, Shop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running_shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shop]:
    folder, authority, backends = tmp_path_factory.mktemp("shop"), trustme.CA(), Backends()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.cert_chain_pems[0].write_to_path(str(folder / "cert.pem"))
    certificate.private_key_pem.write_to_path(str(folder / "key.pem"))
    async with backends.mesh(folder) as mesh:
        shop = Shop(mesh, backends, {}, folder, authority)
        async with shop.start("uvicorn") as one, shop.start("hypercorn") as two, shop.start("granian") as three:
            shop.edges.update(zip(SERVERS, (one, two, three), strict=True))
            yield shop
    gc.collect()  # Hypercorn leaves coroutines that nobody awaits: the warnings are ignored here, and not at the end


@pytest.fixture
def shop(running_shop: Shop) -> Shop:
    """The shop, with backends that block no call."""
    running_shop.backends.reset()
    return running_shop


@pytest.fixture
def edge(shop: Shop, server: str) -> Edge:
    return shop.edges[server]
