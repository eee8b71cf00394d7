"""What bulk runs over databases do for each name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Protocol

from .._request.call import Meter
from .._request.context import ClusterContext
from ..errors import PermissionDeniedError, UnsupportedOperationError
from ..models import Database
from .job import ClusterJob, DoneT_co, removed
from .outcomes import Action, DatabaseDone, Removed
from .settle import create_settled, readable
from .specs import name_spec


class Databases(Protocol):
    """The calls of ``DatabasesAPI`` that the jobs make."""

    async def get(self, name: str) -> Database: ...

    async def create(self, name: str) -> Database: ...

    async def delete(self, name: str) -> None: ...

    async def list(self) -> Sequence[Database]: ...


class DatabaseJob(ClusterJob[Databases, str, DoneT_co]):
    """A job on databases, each given by its name."""

    def check(self, given: object) -> str:
        return name_spec(given)


class ProvisionDatabases(DatabaseJob[DatabaseDone]):
    """Create each database that is not there."""

    def __init__(self, context: ClusterContext, api: Callable[[ClusterContext], Databases]) -> None:
        super().__init__(context, api)
        self._existing: frozenset[str] = frozenset()

    async def prepare(self, meter: Meter) -> int:
        """Read which databases are there already.

        Where the token may not list them, each create is sent, and its answer tells. Where the engine has no databases,
        each name fails with the same error.
        """
        at_a_time = await super().prepare(meter)
        with suppress(UnsupportedOperationError, PermissionDeniedError):
            self._existing = frozenset(db.name for db in await readable(self.calls(meter).list, self.retry))
        return at_a_time

    async def do(self, spec: str, meter: Meter) -> DatabaseDone:
        if spec in self._existing:
            return DatabaseDone(name=spec, action=Action.KEPT, db=Database(spec))
        dbs = self.calls(meter)
        ours, db = await create_settled(partial(dbs.create, spec), partial(dbs.get, spec), self.retry)
        action = Action.CREATED if ours else Action.KEPT
        return DatabaseDone(name=spec, action=action, db=db, tries=meter.requests)


class DeprovisionDatabases(DatabaseJob[Removed]):
    """Delete each database that is there."""

    async def do(self, spec: str, meter: Meter) -> Removed:
        return await removed(self.calls(meter).delete, spec, meter)
