"""``Service``: starts and stops the API of a sandbox, in the running event loop or in a thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import Any, TypeVar

from aiohttp import web

from ._data import Data, mapping
from ._reach import Reach
from ._registry import Registry
from ._server import Api
from ._tokens import Tokens

T = TypeVar("T")

NOT_RUNNING = "the sandbox is not running; enter it with `async with` or `with` first"
_STOP_SECONDS = 0.05  # how long stopping waits for answers that are about to be sent


class Service:
    """Runs the HTTP server of a sandbox, and opens and closes what it serves."""

    def __init__(
        self, api: Api, clusters: Registry, tokens: Tokens, reach: Reach, port: int, folder: Path | None
    ) -> None:
        self.url: str | None = None  # None while it is not running
        self._api = api
        self._clusters = clusters
        self._tokens = tokens
        self._reach = reach
        self._port = port
        self._folder = folder
        self._opened = AsyncExitStack()  # closes what ``start`` opened
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: LoopThread | None = None

    async def start(self) -> None:
        """Start to serve in the running event loop, or raise as on entering a ``Sandbox``."""
        if self._loop is not None:
            raise RuntimeError("the sandbox is running already")
        async with AsyncExitStack() as opened:
            data = None if self._folder is None else opened.enter_context(closing(Data(self._folder)))
            opened.callback(self._tokens.close)
            if data is not None:
                self._tokens.open(mapping(data, "tokens"))
            opened.push_async_callback(self._clusters.close)
            opened.push_async_callback(self._api.stop)
            runner = web.ServerRunner(web.Server(self._api.handle, access_log=None), shutdown_timeout=_STOP_SECONDS)
            opened.push_async_callback(runner.cleanup)
            await runner.setup()
            await web.TCPSite(runner, self._reach.bind, self._port, backlog=1024).start()
            await self._clusters.open(data)
            self._opened = opened.pop_all()
        self._loop = asyncio.get_running_loop()
        self.url = f"http://{self._reach.address}:{runner.addresses[0][1]}"

    async def stop(self) -> None:
        """Stop the API and all servers behind it."""
        self._loop, self.url = None, None
        await self._opened.aclose()

    def start_in_thread(self) -> None:
        """Call ``start`` in a new thread with its own event loop."""
        thread = LoopThread()
        try:
            thread.run(self.start())
        except BaseException:
            thread.stop()
            raise
        self._thread = thread

    def stop_thread(self) -> None:
        """Call ``stop``, and end the thread of ``start_in_thread``."""
        thread, self._thread = self._thread, None
        if thread is not None:
            try:
                thread.run(self.stop())
            finally:
                thread.stop()

    async def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run ``coroutine`` in the event loop of the sandbox, or raise RuntimeError if it is not running."""
        loop = self._loop
        if loop is asyncio.get_running_loop():
            return await coroutine
        if loop is None:
            coroutine.close()
            raise RuntimeError(NOT_RUNNING)
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, loop))


class LoopThread:
    """Runs coroutines for callers without an event loop, in a daemon thread, which does not delay an exit."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="aiodbclient-sandbox", daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run ``coroutine`` in the thread and wait for its result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def stop(self) -> None:
        """Wait at most 10 seconds for running tasks, then stop the loop and the thread."""
        self.run(_wait_for_tasks())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _wait_for_tasks() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if others:
        await asyncio.wait(others, timeout=10)
    await asyncio.get_running_loop().shutdown_default_executor()
