"""The databases of a cluster."""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Iterable

from ._bulk.jobs import Result, delete, provision_db, readable, run
from ._bulk.run import Run
from ._json.converter import read, read_nothing
from ._request.context import Scope
from ._request.operations import CREATE_DB, DELETE_DB, GET_DB, LIST_DBS
from ._request.pages import read_all
from ._request.paths import check_name, segment
from .errors import PermissionDeniedError, UnsupportedOperationError
from .models import Database, NewUser


class DatabasesAPI:
    """``cluster.dbs``. A database has a name and nothing else, so there is no update: the API has none.

    Every method raises UnsupportedOperationError on Redis and Valkey, InvalidArgumentError for a name that no URL can
    carry (nothing was sent in both cases), and else the errors of ``aiodbclient.errors``.
    """

    __slots__ = ("_scope",)

    def __init__(self, scope: Scope) -> None:
        self._scope = scope

    async def list(self) -> list[Database]:
        """All databases of the cluster. Safe to retry and to cancel."""
        scope = self._scope
        await scope.allow(LIST_DBS)
        return await read_all(scope.transport, LIST_DBS, f"{scope.path}/dbs", "dbs", Database, scope.options)

    async def get(self, name: str) -> Database:
        """The database ``name``. Raises NotFoundError where there is none. Safe to retry and to cancel."""
        scope = self._scope
        path = f"{scope.path}/dbs/{segment(name)}"
        await scope.allow(GET_DB)
        return read(await scope.transport.request(GET_DB, path, options=scope.options), "db", Database)

    async def create(self, name: str) -> Database:
        """Create the database ``name``.

        Raises ConflictError or UnprocessableEntityError where the name is taken. Not sent again once it may have been
        applied: such an error has ``may_have_applied`` set, and ``get(name)`` tells. The same holds for a cancelled
        call.
        """
        scope = self._scope
        check_name(name)
        await scope.allow(CREATE_DB)
        answer = await scope.transport.request(CREATE_DB, f"{scope.path}/dbs", {"name": name}, scope.options)
        return read(answer, "db", Database)

    async def delete(self, name: str) -> None:
        """Delete the database ``name`` and all that is in it.

        Raises NotFoundError where there is none, unless an earlier try of this call may have deleted it. Safe to retry;
        a cancelled call may have been applied.
        """
        scope = self._scope
        path = f"{scope.path}/dbs/{segment(name)}"
        await scope.allow(DELETE_DB)
        read_nothing(await scope.transport.request(DELETE_DB, path, options=scope.options))

    def provision(self, names: Iterable[str] | AsyncIterable[str], *, concurrency: int | None = None) -> Run:
        """See to it that each of the databases is there; the Outcomes are CREATED, KEPT or FAILED.

        A create whose answer was lost is settled. Otherwise as ``users.provision``.
        """

        async def prepare(scope: Scope) -> Callable[[Scope, NewUser], Awaitable[Result]]:
            retry = scope.transport.retry
            try:
                existing = {db.name for db in await readable(DatabasesAPI(scope).list, retry)}
            except (UnsupportedOperationError, PermissionDeniedError):
                existing = set[str]()  # as in users.provision
            return lambda scope, spec: provision_db(DatabasesAPI(scope), spec.name, existing, retry)

        return run(self._scope, names, concurrency, prepare)

    def deprovision(self, names: Iterable[str] | AsyncIterable[str], *, concurrency: int | None = None) -> Run:
        """Delete each of the databases and all that is in them; the Outcomes are DELETED, ABSENT or FAILED.

        Otherwise as ``users.provision``.
        """

        async def prepare(scope: Scope) -> Callable[[Scope, NewUser], Awaitable[Result]]:
            return lambda scope, spec: delete(DatabasesAPI(scope), spec.name)

        return run(self._scope, names, concurrency, prepare)
