"""The databases of a cluster."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable

from ._bulk.jobs import Deprovision, ProvisionDatabases, create_db
from ._bulk.outcomes import DatabaseOutcome, RemovalOutcome
from ._bulk.run import Run, parse_name
from ._http.context import ClusterContext
from ._http.operations import CREATE_DB, DELETE_DB, GET_DB, LIST_DBS
from .models import Database


class DatabasesAPI:
    """``cluster.dbs``: the databases of one cluster, one at a time or in bulk.

    A database has only a name, so there is no update.

    Every method can raise the errors of ``aiodbclient.errors``. Two of them mean that nothing was sent:
    UnsupportedOperationError (Redis and Valkey), and InvalidArgumentError (a name that a URL cannot hold).
    """

    def __init__(self, context: ClusterContext) -> None:
        self._context = context

    async def list(self) -> list[Database]:
        """Read all databases of the cluster. Safe to repeat and to cancel."""
        return await self._context.list(LIST_DBS, Database)

    async def get(self, name: str) -> Database:
        """Read one database. Safe to repeat and to cancel.

        Raises:
            NotFoundError: There is no such database. The API can answer this for a moment after the create.
        """
        return (await self._context.send(GET_DB, name)).read(Database)

    async def create(self, name: str) -> Database:
        """Create a database. Not safe to repeat: the second call raises NameTakenError.

        If the answer is lost, the database may exist. The client does not retry, and the error has ``may_have_applied``
        set: look with ``get``. A cancelled call may have been applied too. ``ensure`` is safe to repeat in both cases.

        Raises:
            NameTakenError: The name is taken.
        """
        return (await self._context.send(CREATE_DB, name, Database(name))).read(Database)

    async def ensure(self, name: str) -> Database:
        """Return the database, and create it if it does not exist. Safe to repeat, also after a cancellation."""
        return (await create_db(self._context, parse_name(name)))[1]

    async def delete(self, name: str) -> None:
        """Delete a database and all that is in it. Safe to repeat; a cancelled call may have been applied.

        Raises:
            NotFoundError: There is no such database. If an earlier try of this call may have deleted it, the call
                succeeds.
        """
        (await self._context.send(DELETE_DB, name)).read_nothing()

    def provision(
        self, names: Iterable[str | Database] | AsyncIterable[str | Database], *, concurrency: int | None = None
    ) -> Run[DatabaseOutcome]:
        """Create the databases that do not exist. Safe to run again. To stop or cancel it, see Run.

        If the answer to a create is lost, the run reads the database back, and creates it again if it is missing.

        Args:
            names: Names, or Databases. The run reads the iterable as it goes. A duplicate name fails.
            concurrency: Names at a time. None: as many as the engine allows, 1 for MongoDB and 16 for the others.

        Returns:
            The run. Its outcomes are CREATED, KEPT or FAILED.

        Raises:
            InvalidArgumentError: At once, if an argument is invalid.
            DatabaseClientError: In the loop, if the whole run ends; see Run.
        """
        return Run(names, ProvisionDatabases(self._context), concurrency)

    def deprovision(
        self, names: Iterable[str | Database] | AsyncIterable[str | Database], *, concurrency: int | None = None
    ) -> Run[RemovalOutcome]:
        """Delete the databases and all that is in them. Safe to run again. To stop or cancel it, see Run.

        Args:
            names: As for ``provision``.
            concurrency: As for ``provision``.

        Returns:
            The run. Its outcomes are DELETED, ABSENT if there was no such database, or FAILED. Nothing is ABSENT if the
            token may not read the cluster, since there may be no such cluster.

        Raises:
            NotFoundError: In the loop, if there is no such cluster.
        """
        return Run(names, Deprovision(self._context, LIST_DBS, DELETE_DB, Database), concurrency)
