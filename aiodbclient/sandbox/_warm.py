"""``warm_servers``: keep embedded PostgreSQLs running for the next clusters."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._embedded import EmbeddedPostgres

_MOST = 4  # idle servers


class Pool:
    """The idle servers. Sandboxes in different threads share them."""

    def __init__(self) -> None:
        self._idle: list[EmbeddedPostgres] = []
        self._users = 0
        self._lock = Lock()

    @property
    def is_open(self) -> bool:
        return self._users > 0

    def take(self, wanted: EmbeddedPostgres) -> EmbeddedPostgres:
        """Take an idle server that is like ``wanted``; ``wanted`` itself if there is none."""
        with self._lock:
            for server in self._idle:
                if server.is_like(wanted) and not server.has_failed():
                    self._idle.remove(server)
                    return server
        return wanted

    def give(self, server: EmbeddedPostgres) -> bool:
        """Put back an empty ``server``. Returns whether it is kept; if not, the caller must stop it."""
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
    sandbox in this process. A server that cannot be emptied is stopped. Sandboxes with ``data`` do not share servers.
    The files are in memory (``/dev/shm``) if it has a GiB free and TMPDIR is not set. On exit, idle servers are
    stopped.

    The pytest fixtures do this already. For tests that create their own ``Sandbox``:

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
