"""The backends, two edges and the gateways in front of both, which the tests of a module share."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
import trustme

from tests.gateways.shop import Shop, TimedBackends, new_place

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.gateways.front import Front


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running_shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shop]:
    folder, authority, backends = tmp_path_factory.mktemp("shop"), trustme.CA(), TimedBackends()
    certificate = authority.issue_cert("127.0.0.1", "localhost")
    certificate.cert_chain_pems[0].write_to_path(str(folder / "cert.pem"))
    certificate.private_key_pem.write_to_path(str(folder / "key.pem"))
    async with backends.mesh(folder) as mesh:
        one, two = new_place(), new_place()
        shop = Shop(mesh, backends, folder, authority, (one, two))
        async with shop.start(one), shop.start(two):
            yield shop


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running_fronts(running_shop: Shop) -> AsyncIterator[tuple[dict[str, Front], AsyncExitStack]]:
    async with AsyncExitStack() as stack:
        yield {}, stack


@pytest.fixture
def shop(running_shop: Shop) -> Shop:
    """The shop, with backends that block no call."""
    running_shop.backends.reset()
    running_shop.backends.remaining.clear()
    return running_shop


@pytest_asyncio.fixture(loop_scope="module")
async def gateway(shop: Shop, running_fronts: tuple[dict[str, Front], AsyncExitStack], name: str) -> Front:
    """The gateway of this name in front of both edges, which is started once."""
    fronts, stack = running_fronts
    if name not in fronts:
        fronts[name] = await stack.enter_async_context(shop.front(name, *shop.places))
    return fronts[name]
