"""``warm_servers``: keep embedded PostgreSQLs running for the clusters that are added next."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .embedded import EmbeddedPostgres

_MOST = 4  # servers that wait for a cluster


class Pool:
    """The servers that no cluster uses at the moment. Sandboxes in different threads share it."""

    def __init__(self) -> None:
        self._idle: list[EmbeddedPostgres] = []
        self._users = 0
        self._lock = Lock()

    @property
    def is_open(self) -> bool:
        return self._users > 0

    def take(self, wanted: EmbeddedPostgres) -> EmbeddedPostgres:
        """A server that runs already and is like ``wanted``; ``wanted`` itself if there is none."""
        with self._lock:
            for server in self._idle:
                if server.is_like(wanted) and not server.has_failed():
                    self._idle.remove(server)
                    return server
        return wanted

    def give(self, server: EmbeddedPostgres) -> bool:
        """Return whether ``server``, which is empty, is kept. If not, the caller has to stop it."""
        with self._lock:
            kept = self.is_open and len(self._idle) < _MOST
            if kept:
                self._idle.append(server)
            return kept

    def open(self) -> None:
        with self._lock:
            self._users += 1

    def close(self) -> None:
        with self._lock:
            self._users -= 1
            leaving, self._idle = ([], self._idle) if self._users else (self._idle, [])
        for server in leaving:
            server.end()


POOL = Pool()


@contextmanager
def warm_servers() -> Generator[None]:
    """Let embedded PostgreSQLs outlive their clusters, so that the next cluster starts in milliseconds.

    When a cluster stops, its server is emptied (databases, roles, sessions) and waits for the next cluster of any
    sandbox of this process. If it cannot be emptied, it is stopped. Sandboxes with ``data`` have servers of their own.
    The files are in memory (``/dev/shm``) if there is a GiB of it, and TMPDIR is not set. On leaving, the servers that
    no cluster uses are stopped.

    The fixtures of pytest do this by themselves. For tests that make a ``Sandbox`` of their own:

    ```python
    @pytest.fixture(scope="session", autouse=True)
    def servers():
        with warm_servers():
            yield
    ```
    """
    POOL.open()
    try:
        yield
    finally:
        POOL.close()
