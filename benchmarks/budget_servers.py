"""Start a server for shared budgets: ``with SERVERS["postgres"]() as server``, on a free port of 127.0.0.1."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from aiodbclient.sandbox._embedded import SUPERUSER, EmbeddedPostgres
from valkey_server import ValkeyServer


class BudgetServer(Protocol):
    """A server that can be stopped, and started again at the same URL."""

    @property
    def url(self) -> str: ...

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


class PostgresServer:
    """A PostgreSQL that keeps its data, its port and its password when it is stopped."""

    def __init__(self) -> None:
        self._kept: dict[str, Any] = {}
        self._folder = Path(tempfile.mkdtemp(prefix="aiodbclient-budgets-"))
        self._running = EmbeddedPostgres(kept=self._kept, data=self._folder / "data")

    @property
    def url(self) -> str:
        return f"postgresql://{SUPERUSER}:{self._running.password}@127.0.0.1:{self._running.port}/postgres"

    def start(self) -> None:
        with ThreadPoolExecutor(1) as other_thread:  # this one may run an event loop
            other_thread.submit(lambda: asyncio.run(self._running.start())).result()
        self._running.is_new = False

    def stop(self) -> None:
        self._running.end()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)


SERVERS: dict[str, Callable[[], BudgetServer]] = {"postgres": PostgresServer, "valkey": ValkeyServer}
