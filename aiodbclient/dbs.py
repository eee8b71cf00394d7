"""The databases of a cluster."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable

from ._bulk.jobs import DeprovisionDatabases, ProvisionDatabases
from ._bulk.outcomes import DatabaseOutcome, RemovalOutcome
from ._bulk.run import Run
from ._request.db_calls import DatabaseCalls


class DatabasesAPI(DatabaseCalls):
    """``cluster.dbs``: the databases of one cluster, one at a time or in bulk.

    A database has only a name, so there is no update.

    Every method can raise the errors of ``aiodbclient.errors``. Two of them mean that nothing was sent:
    UnsupportedOperationError (Redis and Valkey), and InvalidArgumentError (a name that a URL cannot hold).
    """

    __slots__ = ()

    def provision(
        self, names: Iterable[str] | AsyncIterable[str], *, concurrency: int | None = None
    ) -> Run[DatabaseOutcome]:
        """Create each of the databases that does not exist. Safe to run again.

        If the answer to a create is lost, the run reads the name back, and creates it again if it is missing.

        Args:
            names: The names. The run reads the iterable as it goes. If a name comes twice, the second one fails, and
                nothing is sent for it.
            concurrency: Names at a time. None: as many as the engine allows, 1 for MongoDB and 16 for the others.

        Returns:
            The run, in the budget's bulk lane. Its outcomes are CREATED, KEPT or FAILED.

        Raises:
            InvalidArgumentError: At once, if an argument is invalid.
            DatabaseClientError: In the loop, if the whole run ends; see Run.
        """
        return Run(names, ProvisionDatabases(self._context), concurrency)

    def deprovision(
        self, names: Iterable[str] | AsyncIterable[str], *, concurrency: int | None = None
    ) -> Run[RemovalOutcome]:
        """Delete each of the databases and all that is in them. Safe to run again.

        Args:
            names: As for ``provision``.
            concurrency: As for ``provision``.

        Returns:
            The run. Its outcomes are DELETED, ABSENT if there was no such database, or FAILED.
        """
        return Run(names, DeprovisionDatabases(self._context), concurrency)
