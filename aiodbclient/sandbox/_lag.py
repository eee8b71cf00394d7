"""``Lag``: changes of a cluster that reads show late, because of a fault."""

from __future__ import annotations

import time

from ._answers import not_found
from ._validation import JSON


class Lag:
    """The creation time of each user and db, and how long reads return an older state."""

    def __init__(self) -> None:
        self._born: dict[tuple[str, str], float] = {}
        self._empty: dict[str, float] = {}
        self._ghosts: dict[str, tuple[float, JSON]] = {}

    def users(self, users: list[JSON]) -> list[JSON]:
        """``users`` as a list returns them now, with deleted users that are still listed."""
        now = time.monotonic()
        there = {user["name"] for user in users}
        self._ghosts = {name: ghost for name, ghost in self._ghosts.items() if now < ghost[0] and name not in there}
        return [self.user(user) for user in users] + [ghost for _, ghost in self._ghosts.values()]

    def user(self, user: JSON) -> JSON:
        """``user`` as a read returns it now."""
        if time.monotonic() < self._empty.get(user["name"], 0.0) and "password" in user:
            return {**user, "password": ""}
        return user

    def empty_password(self, name: str, seconds: float) -> None:
        """Return the password of a user as "" for the next ``seconds``."""
        self._empty[name] = time.monotonic() + seconds

    def keep_listed(self, user: JSON, seconds: float) -> None:
        """List ``user`` for the next ``seconds``, even if it is deleted."""
        self._ghosts[user["name"]] = time.monotonic() + seconds, user

    def created(self, kind: str, name: str) -> None:
        """Record that a user or db was created now."""
        self._born[kind, name] = time.monotonic()

    def deleted(self, kind: str, name: str) -> None:
        """Forget a user or db. A list may still show it."""
        self._born.pop((kind, name), None)
        if kind == "users":
            self._empty.pop(name, None)

    def refuse_unseen(self, kind: str, name: str, seconds: float) -> None:
        """Refuse with 404 a user or db that was created less than ``seconds`` ago."""
        born = self._born.get((kind, name))
        if born is not None and time.monotonic() - born < seconds:
            raise not_found()
