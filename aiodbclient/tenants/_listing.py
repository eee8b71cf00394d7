"""``Listing``: the users and databases of a cluster, listed once for a run."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from .._bulk.settle import if_found
from ..clusters import ClusterClient
from ..engines import Engine
from ..errors import PermissionDeniedError
from ..models import User
from ._naming import Names
from ._prefixes import list_objects, objects_of


class Listing:
    """The users and databases of a cluster, listed at their first use, or (without ``lists``) read name by name."""

    def __init__(self, *, lists: bool = True) -> None:
        self._listing = asyncio.Lock()
        self._users: Mapping[str, User] | None = None
        self._databases: frozenset[str] | None = None
        self._objects: list[str] | None = None
        self._denied = set[str]() if lists else {"users", "databases"}

    async def users(self, cluster: ClusterClient) -> Mapping[str, User] | None:
        """The users by their names; None if they are not listed."""
        async with self._listing:
            if self._users is None and "users" not in self._denied:
                try:
                    self._users = {user.name: user for user in await cluster.users.list()}
                except PermissionDeniedError:
                    self._denied.add("users")
            return self._users

    async def databases(self, cluster: ClusterClient) -> frozenset[str] | None:
        """The names of the databases; None if they are not listed."""
        async with self._listing:
            if self._databases is None and "databases" not in self._denied:
                try:
                    self._databases = frozenset(db.name for db in await cluster.dbs.list())
                except PermissionDeniedError:
                    self._denied.add("databases")
            return self._databases

    async def user(self, cluster: ClusterClient, login: str) -> User | None:
        """The user ``login`` as it is listed, or as it is read if it is not; None if there is none."""
        return (await self.users(cluster) or {}).get(login) or await read_user(cluster, login)

    async def has_database(self, cluster: ClusterClient, name: str) -> bool:
        """Whether the database ``name`` is listed, or can be read."""
        return name in (await self.databases(cluster) or ()) or await has_database(cluster, name)

    async def find_user(self, cluster: ClusterClient, login: str) -> User | None:
        """The user ``login``, or None. A listed one is read again, because the list may be old."""
        users = await self.users(cluster)
        return await read_user(cluster, login) if users is None or login in users else None

    async def find_database(self, cluster: ClusterClient, name: str) -> bool:
        """Whether the database ``name`` exists. A listed one is read again, because the list may be old."""
        databases = await self.databases(cluster)
        return (databases is None or name in databases) and await has_database(cluster, name)

    async def objects(self, cluster: ClusterClient, engine: Engine | str, names: Names) -> list[str]:
        """The topics or indexes of a tenant."""
        async with self._listing:
            if self._objects is None:
                self._objects = await list_objects(cluster, engine)
            return objects_of(names, self._objects)


async def read_user(cluster: ClusterClient, login: str) -> User | None:
    """The user ``login``, or None."""
    return await if_found(cluster.users.get(login))


async def has_database(cluster: ClusterClient, name: str) -> bool:
    """Whether the database ``name`` exists."""
    return await if_found(cluster.dbs.get(name)) is not None
