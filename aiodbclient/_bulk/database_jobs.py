"""The jobs of bulk runs over databases."""

from __future__ import annotations

from contextlib import suppress
from functools import partial

from .._request.call import Meter
from .._request.context import ClusterContext
from .._request.db_calls import DatabaseCalls
from ..errors import PermissionDeniedError, UnsupportedOperationError
from ..models import Database
from .job import ClusterJob, DoneT_co, removed
from .outcomes import Action, DatabaseDone, Removed
from .settle import create_settled, readable
from .specs import name_spec


class DatabaseJob(ClusterJob[str, DoneT_co]):
    """A job on databases, given by name."""

    def calls(self, meter: Meter) -> DatabaseCalls:
        """Return the calls for the bulk lane of the rate budget. ``meter`` counts their requests."""
        return DatabaseCalls(self._context.for_bulk(meter))

    def check(self, given: object) -> str:
        return name_spec(given)


class ProvisionDatabases(DatabaseJob[DatabaseDone]):
    """Create each database that does not exist."""

    def __init__(self, context: ClusterContext) -> None:
        super().__init__(context)
        self._existing: frozenset[str] = frozenset()

    async def prepare(self) -> int:
        """Read which databases exist."""
        at_a_time = await super().prepare()
        # Without the list, the answer to each create shows whether the name is taken, or why there are no databases.
        with suppress(UnsupportedOperationError, PermissionDeniedError):
            self._existing = frozenset(db.name for db in await readable(DatabaseCalls(self._context).list, self.retry))
        return at_a_time

    async def do(self, spec: str, meter: Meter) -> DatabaseDone:
        if spec in self._existing:
            return DatabaseDone(name=spec, action=Action.KEPT, db=Database(spec))
        dbs = self.calls(meter)
        is_new, db = await create_settled(partial(dbs.create, spec), partial(dbs.get, spec), self.retry)
        action = Action.CREATED if is_new else Action.KEPT
        return DatabaseDone(name=spec, action=action, db=db, tries=meter.requests)


class DeprovisionDatabases(DatabaseJob[Removed]):
    """Delete each database that exists."""

    async def do(self, spec: str, meter: Meter) -> Removed:
        return await removed(self.calls(meter).delete, spec, meter)
