"""The logins of tenants, made by SQL: the API lists them like all other users, and no bulk run deletes them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Protocol

from .._request.context import ClusterContext
from .._request.db_calls import DatabaseCalls
from ..engines import capabilities_of, is_derived
from .settle import readable


class Login(Protocol):
    """A credential on record."""

    @property
    def username(self) -> str: ...


class TenantRecord(Protocol):
    """What a store has of a tenant, or of a tenant's reader or writer."""

    @property
    def name(self) -> str: ...

    @property
    def current(self) -> Login | None: ...

    @property
    def previous(self) -> Login | None: ...


class TenantRecords(Protocol):
    """What a run reads of a store of ``aiodbclient.tenants``."""

    def records(self) -> AsyncIterator[TenantRecord]: ...


async def tenants_logins(context: ClusterContext, store: TenantRecords | None) -> Callable[[str], bool]:
    """Return whether a name is, or may be, that of a tenant's login.

    A tenant's first login has the name of its database. The names of the others have a form that no other user has.
    """
    if not capabilities_of(await context.learn_engine()).tenants:
        return lambda name: False
    taken = {db.name for db in await readable(DatabaseCalls(context).list, context.options.retry)}
    if store is not None:
        async for record in store.records():
            credentials = (record.current, record.previous)
            taken |= {record.name, *(each.username for each in credentials if each is not None)}
    return lambda name: name in taken or is_derived(name)
