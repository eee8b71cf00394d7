"""The databases of a cluster."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable

from ._bulk.jobs import DeprovisionDatabases, ProvisionDatabases
from ._bulk.outcomes import DatabaseOutcome, RemovalOutcome
from ._bulk.run import Run
from ._request.context import ClusterContext
from ._request.operations import CREATE_DB, DELETE_DB, GET_DB, LIST_DBS
from .models import Database


class DatabasesAPI:
    """``cluster.dbs``. A database has a name and nothing else, so there is no update: the API has none.

    Every method raises UnsupportedOperationError on Redis and Valkey, InvalidArgumentError for a name that no URL can
    carry (nothing was sent in both cases), and else the errors of ``aiodbclient.errors``.
    """

    __slots__ = ("_context",)

    def __init__(self, context: ClusterContext) -> None:
        self._context = context

    async def list(self) -> list[Database]:
        """All databases of the cluster. Safe to retry and to cancel."""
        return await self._context.list(LIST_DBS, Database)

    async def get(self, name: str) -> Database:
        """The database ``name``. Raises NotFoundError where there is none. Safe to retry and to cancel."""
        return (await self._context.send(GET_DB, name)).read(Database)

    async def create(self, name: str) -> Database:
        """Create the database ``name``.

        Raises ConflictError or UnprocessableEntityError where the name is taken. Not sent again once it may have been
        applied: such an error has ``may_have_applied`` set, and ``get(name)`` tells. The same holds for a cancelled
        call.
        """
        return (await self._context.send(CREATE_DB, name, {"name": name})).read(Database)

    async def delete(self, name: str) -> None:
        """Delete the database ``name`` and all that is in it.

        Raises NotFoundError where there is none, unless an earlier try of this call may have deleted it. Safe to retry;
        a cancelled call may have been applied.
        """
        (await self._context.send(DELETE_DB, name)).read_nothing()

    def provision(
        self, names: Iterable[str] | AsyncIterable[str], *, concurrency: int | None = None
    ) -> Run[DatabaseOutcome]:
        """See to it that each of the databases is there; the Outcomes are CREATED, KEPT or FAILED.

        A create whose answer was lost is settled. Otherwise as ``users.provision``.
        """
        return Run(names, ProvisionDatabases(self._context, DatabasesAPI), concurrency)

    def deprovision(
        self, names: Iterable[str] | AsyncIterable[str], *, concurrency: int | None = None
    ) -> Run[RemovalOutcome]:
        """Delete each of the databases and all that is in them; the Outcomes are DELETED, ABSENT or FAILED.

        Otherwise as ``users.provision``.
        """
        return Run(names, DeprovisionDatabases(self._context, DatabasesAPI), concurrency)
