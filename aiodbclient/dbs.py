"""The databases of a cluster."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable

from ._bulk.database_jobs import DeprovisionDatabases, ProvisionDatabases
from ._bulk.outcomes import DatabaseOutcome, RemovalOutcome
from ._bulk.run import Run
from ._request.db_calls import DatabaseCalls


class DatabasesAPI(DatabaseCalls):
    """``cluster.dbs``: the databases of one cluster, one at a time or in bulk.

    A database has a name and nothing else, so there is no update: the API has none.

    Beside what it says itself, every method raises the errors of ``aiodbclient.errors``. Two of them mean that nothing
    was sent: UnsupportedOperationError on Redis and Valkey, and InvalidArgumentError for a name that no URL can carry.
    """

    __slots__ = ()

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
        return Run(names, ProvisionDatabases(self._context), concurrency)

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
        return Run(names, DeprovisionDatabases(self._context), concurrency)
