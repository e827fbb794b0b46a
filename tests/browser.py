"""A headless Chromium, driven over the Chrome DevTools Protocol (https://chromedevtools.github.io/devtools-protocol)."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from asyncio.subprocess import DEVNULL, PIPE
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

PROGRAMS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
"""The first has no windows, and needs half of the CPU of the others."""
CHROMIUM = next(filter(None, map(shutil.which, PROGRAMS)), None)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
)
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: install chromium")


class Browser:
    """A running browser."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._calls = 0

    @asynccontextmanager
    async def tab(self) -> AsyncIterator[Tab]:
        """A tab that shares no state with others, and is closed after the block."""
        context = await self.call("Target.createBrowserContext")
        try:
            tab = Tab(self, context)
            await tab.open()
            yield tab
        finally:
            await self.call("Target.disposeBrowserContext", **context)

    async def call(self, method: str, session: dict[str, str] | None = None, **parameters: object) -> Any:
        """Calls a method of the browser, or of the session of a tab; returns its result."""
        self._calls += 1
        await self._socket.send_json({"id": self._calls, "method": method, "params": parameters, **(session or {})})
        async for message in self._socket:  # events may come first
            if (response := message.json()).get("id") == self._calls:
                return response.get("result", {})
        raise AssertionError("the browser closed the connection")


class Tab:
    """One page, at first as narrow as a phone."""

    def __init__(self, browser: Browser, context: dict[str, str]) -> None:
        self._browser = browser
        self._context = context
        self._session: dict[str, str] = {}

    async def open(self) -> None:
        """Opens another page in the same context."""
        self._session = {}
        target = await self._call("Target.createTarget", url="about:blank", **self._context)
        attached = await self._call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = {"sessionId": attached["sessionId"]}
        await self.resize(390)

    async def resize(self, width: int) -> None:
        """Sets the width of the page in pixels."""
        size = {"width": width, "height": 844, "deviceScaleFactor": 1}
        await self._call("Emulation.setDeviceMetricsOverride", mobile=True, **size)

    async def prefer(self, scheme: str) -> None:
        """Sets the user's colour scheme: light or dark."""
        await self._call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    async def skip(self, seconds: float) -> None:
        """Advances the page's timers without waiting; network responses still take their real time."""
        policy = {"policy": "pauseIfNetworkFetchesPending", "budget": seconds * 1000}
        await self._call("Emulation.setVirtualTimePolicy", **policy)

    async def show(self, url: str, until: str) -> None:
        """Opens an address and waits until a JavaScript expression is true."""
        await self._call("Page.navigate", url=url)
        await self.wait(until)

    async def wait(self, until: str) -> None:
        """Waits until a JavaScript expression is true; after a minute it fails and shows the page's text."""
        try:
            async with asyncio.timeout(60):
                while not await self.value(f"Boolean({until})"):
                    await asyncio.sleep(0.02)
        except TimeoutError:
            page = await self.value("location.href + document.body.innerText")
            raise AssertionError(f"after 60 s still false: {until}\non the page {page}") from None

    async def value(self, expression: str) -> Any:
        """The value of a JavaScript expression, or of its promise.

        None if it throws, for example because the page is not loaded yet.
        """
        response = await self._call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        return response.get("result", {}).get("value")

    async def wait_for_redraw(self) -> None:
        """Waits until the page is drawn again."""
        twice = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
        await self._call("Runtime.evaluate", expression=twice, awaitPromise=True)

    async def _call(self, method: str, **parameters: object) -> Any:
        return await self._browser.call(method, self._session, **parameters)


@asynccontextmanager
async def browsing(profile: Path) -> AsyncIterator[Tab]:
    """A tab of a new browser, which keeps its files in `profile`."""
    async with running_browser(profile) as browser, browser.tab() as tab:
        yield tab


@asynccontextmanager
async def running_browser(profile: Path, *more: str) -> AsyncIterator[Browser]:
    """A new browser, which keeps its files in `profile`, with more flags."""
    flags = (*FLAGS, *more, "--no-startup-window", "--remote-debugging-port=0", f"--user-data-dir={profile}")
    browser = await asyncio.create_subprocess_exec(
        str(CHROMIUM), *flags, stdout=DEVNULL, stderr=PIPE, start_new_session=True
    )
    assert browser.stderr
    try:
        while b"DevTools listening on" not in (line := await browser.stderr.readline()):
            assert line, "the browser did not start"
        async with (
            aiohttp.ClientSession() as http,
            http.ws_connect(line.split()[-1].decode(), max_msg_size=0) as socket,
        ):
            yield Browser(socket)
    finally:
        os.killpg(browser.pid, signal.SIGTERM)  # it may be a script that waits for the browser
        await browser.communicate()
