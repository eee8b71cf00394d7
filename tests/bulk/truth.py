"""What a sandbox knows and its API does not tell: the current password of each user, and what was done to whom."""

from __future__ import annotations

from collections import Counter
from typing import Any

from aiodbclient.sandbox import Sandbox
from aiodbclient.sandbox.backends import MONGODB_READ_ONLY, MemoryBackend


class Truth:
    """Watches a cluster in memory, from now on.

    ``passwords`` are the current ones by name, ``created`` and ``reset`` how often that was done to a name. A create
    that the server refused was not done.
    """

    def __init__(self, sandbox: Sandbox, cluster: str) -> None:
        backend = sandbox._clusters[cluster].backend
        assert isinstance(backend, MemoryBackend)
        self.created = Counter[str]()
        self.reset = Counter[str]()
        self._backend = backend
        self._told = {name: user.get("password") for name, user in backend._users.items()}
        self._create, self._reset_auth = backend.create_user, backend.reset_auth
        backend.create_user = self._watch_create  # type: ignore[method-assign]
        backend.reset_auth = self._watch_reset  # type: ignore[method-assign]

    @property
    def passwords(self) -> dict[str, str | None]:
        """Of every user but the one that MongoDB clusters have beside the primary."""
        return {name: self._told[name] for name in self._backend._users if name != MONGODB_READ_ONLY}

    async def _watch_create(self, new: Any) -> Any:
        made = await self._create(new)
        self._told[new.name] = made["password"]
        self.created[new.name] += 1
        return made

    async def _watch_reset(self, name: str, auth_plugin: str | None) -> Any:
        made = await self._reset_auth(name, auth_plugin)
        self._told[name] = made["password"]
        self.reset[name] += 1
        return made


def requests(sandbox: Sandbox, *operations: str) -> int:
    """How many requests of these operations (default: of all) have arrived."""
    return sum(not operations or request.operation in operations for request in sandbox.requests)
