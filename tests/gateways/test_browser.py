"""A page in Chromium reads through each gateway: many requests are one connection of HTTP/2."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from bench.relay import relay
from localmesh.gateways.known import GATEWAYS
from tests.browser import needs_browser, running_browser
from tests.gateways.test_silent import in_front

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.browser import Browser
    from tests.gateways.shop import Shop

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(60), needs_browser]

READ = """(async () => {
  const paths = [...Array(100).keys()].map((number) => `/v1/products/TEA-0001?quantity=${number + 1}`);
  const answers = await Promise.all(paths.map((path) => fetch(path)));
  await Promise.all(answers.map((answer) => answer.text()));
  const entries = () => performance.getEntriesByType("resource");
  while (entries().length < paths.length) await new Promise((done) => setTimeout(done, 10));
  const protocols = entries().map((entry) => entry.nextHopProtocol);
  return {statuses: [...new Set(answers.map((answer) => answer.status))], protocols: [...new Set(protocols)]};
})()"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Browser]:
    async with running_browser(tmp_path_factory.mktemp("browser"), "--ignore-certificate-errors") as browser:
        yield browser


@pytest.mark.parametrize("name", GATEWAYS)
async def test_a_page_reads_a_hundred_products_over_one_connection_of_http_2(
    shop: Shop, browser: Browser, name: str
) -> None:
    async with (
        in_front(shop, name, shop.places) as front,
        relay(front.target, delay=0) as network,
        browser.tab() as tab,
    ):
        await tab.show(f"https://{network.address}/livez", "location.pathname === '/livez'")
        assert await tab.value(READ) == {"statuses": [200], "protocols": ["h2"]}
    assert network.connections == 1
