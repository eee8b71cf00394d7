"""Single calls on the databases of a cluster."""

from __future__ import annotations

from ..models import Database
from .context import ClusterContext
from .operations import CREATE_DB, DELETE_DB, GET_DB, LIST_DBS


class DatabaseCalls:
    """The single calls of ``DatabasesAPI``. Bulk runs use them too."""

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
            NotFoundError: There is no such database. The API can answer this for a moment after the create.
        """
        return (await self._context.send(GET_DB, name)).read(Database)

    async def create(self, name: str) -> Database:
        """Create a database.

        The client does not retry a create that may have been applied. The error then has ``may_have_applied`` set: read
        the name back with ``get``. A cancelled call may have been applied too. ``provision`` settles both for you.

        Args:
            name: The database.

        Raises:
            NameTakenError: The name is taken.
        """
        return (await self._context.send(CREATE_DB, name, {"name": name})).read(Database)

    async def delete(self, name: str) -> None:
        """Delete a database and all that is in it. Safe to repeat; a cancelled call may have been applied.

        Args:
            name: The database.

        Raises:
            NotFoundError: There is no such database. If an earlier try of this call may have deleted it, the call
                succeeds.
        """
        (await self._context.send(DELETE_DB, name)).read_nothing()
