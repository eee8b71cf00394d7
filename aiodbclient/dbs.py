"""The databases of a cluster."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable

from ._bulk.database_jobs import DeprovisionDatabases, ProvisionDatabases
from ._bulk.outcomes import DatabaseOutcome, RemovalOutcome
from ._bulk.run import Run
from ._request.context import ClusterContext
from ._request.operations import CREATE_DB, DELETE_DB, GET_DB, LIST_DBS
from .models import Database


class DatabasesAPI:
    """``cluster.dbs``: the databases of one cluster, one at a time or in bulk.

    A database has a name and nothing else, so there is no update: the API has none.

    Beside what it says itself, every method raises the errors of ``aiodbclient.errors``. Two of them mean that nothing
    was sent: UnsupportedOperationError on Redis and Valkey, and InvalidArgumentError for a name that no URL can carry.
    """

    __slots__ = ("_context",)

    def __init__(self, context: ClusterContext) -> None:
        self._context = context

    async def list(self) -> list[Database]:
        """Read all databases of the cluster. Safe to repeat and to cancel."""
        return await self._context.list(LIST_DBS, Database)

    async def get(self, name: str) -> Database:
        """Read one database. Safe to repeat and to cancel.

        Args:
            name: The database.

        Raises:
            NotFoundError: There is no such database. A fresh one can answer so for a moment.
        """
        return (await self._context.send(GET_DB, name)).read(Database)

    async def create(self, name: str) -> Database:
        """Create a database.

        A create that may have been applied is not sent again: its error has ``may_have_applied`` set, and ``get(name)``
        tells. A cancelled call may have been applied too. ``provision`` finds out by itself.

        Args:
            name: The database.

        Raises:
            ConflictError: The name is taken, which UnprocessableEntityError may say too.
        """
        return (await self._context.send(CREATE_DB, name, {"name": name})).read(Database)

    async def delete(self, name: str) -> None:
        """Delete a database and all that is in it. Safe to repeat; a cancelled call may have been applied.

        Args:
            name: The database.

        Raises:
            NotFoundError: There is no such database. Where an earlier try of this call may have deleted it, that is
                success.
        """
        (await self._context.send(DELETE_DB, name)).read_nothing()

    def provision(
        self, names: Iterable[str] | AsyncIterable[str], *, concurrency: int | None = None
    ) -> Run[DatabaseOutcome]:
        """See to it that each of the databases is there. A create whose answer was lost is settled. Safe to run again.

        Args:
            names: The names, taken from the iterable as the run gets to them. One that comes twice fails the second
                time, with nothing sent.
            concurrency: Names at a time. None: what the engine bears, which is 1 for MongoDB and else 16.

        Returns:
            The run, in the budget's bulk lane. Its outcomes are CREATED, KEPT or FAILED.

        Raises:
            InvalidArgumentError: At once, for an argument that cannot be.
            DatabaseClientError: In the loop, for what ends the whole run; see Run.
        """
        return Run(names, ProvisionDatabases(self._context, DatabasesAPI), concurrency)

    def deprovision(
        self, names: Iterable[str] | AsyncIterable[str], *, concurrency: int | None = None
    ) -> Run[RemovalOutcome]:
        """Delete each of the databases and all that is in them. Safe to run again.

        Args:
            names: As for ``provision``.
            concurrency: As for ``provision``.

        Returns:
            The run. Its outcomes are DELETED, ABSENT where there was none, or FAILED.
        """
        return Run(names, DeprovisionDatabases(self._context, DatabasesAPI), concurrency)
