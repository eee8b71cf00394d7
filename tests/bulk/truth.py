"""Facts of a sandbox that its API does not return: the current password of each user, and its creates and resets."""

from __future__ import annotations

from collections import Counter
from typing import Any

from aiodbclient.sandbox import Sandbox
from aiodbclient.sandbox._backends.memory import MONGODB_READ_ONLY, MemoryBackend

from ..changes import html, truncate

# The scopes of a token that reads no passwords.
WITHOUT_CREDENTIALS = ["database:read", "database:create", "database:update", "database:delete"]

FAULTS: dict[str, dict[str, Any]] = {
    "cut before the work": {"cut": True},
    "cut after the work": {"cut": True, "after": True},
    "500 before": {"status": 500},
    "500 after": {"status": 500, "after": True},
    "503 with retry-after": {"status": 503, "headers": {"retry-after": "0.03"}},
    "429": {"status": 429, "headers": {"retry-after": "0.03"}},
    "truncated JSON": {"change": truncate},
    "HTML before": {"status": 200, "change": html},
    "HTML after": {"status": 200, "change": html, "after": True},
    "a page of a proxy": {"status": 502, "change": html, "after": True},
}


class Truth:
    """Watches a cluster in memory from now on. ``created`` and ``reset`` count by name what the server accepted."""

    def __init__(self, sandbox: Sandbox, cluster: str) -> None:
        backend = sandbox._clusters[cluster].backend
        assert isinstance(backend, MemoryBackend)
        self.created = Counter[str]()
        self.reset = Counter[str]()
        self._backend = backend
        self._passwords = {name: user.get("password") for name, user in backend._users.items()}
        self._create, self._reset_auth = backend.create_user, backend.reset_auth
        backend.create_user = self._watch_create  # type: ignore[method-assign]
        backend.reset_auth = self._watch_reset  # type: ignore[method-assign]

    @property
    def passwords(self) -> dict[str, str | None]:
        """The current passwords, without MongoDB's second built-in user."""
        return {name: self._passwords[name] for name in self._backend._users if name != MONGODB_READ_ONLY}

    async def _watch_create(self, new: Any) -> Any:
        made = await self._create(new)
        self._passwords[new.name] = made["password"]
        self.created[new.name] += 1
        return made

    async def _watch_reset(self, name: str, auth_plugin: str | None) -> Any:
        made = await self._reset_auth(name, auth_plugin)
        self._passwords[name] = made["password"]
        self.reset[name] += 1
        return made


def requests(sandbox: Sandbox, *operations: str) -> int:
    """The number of received requests of these operations (default: of all)."""
    return sum(not operations or request.operation in operations for request in sandbox.requests)
