"""Tenants of a cluster: each has a database, a login with all rights in it alone, and a record of both.

``Tenants`` creates, rotates and removes them. A store (``SQLiteStore``, ``PostgresStore``, or one of your own that fits
``Store``) keeps the records.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import errors as errors

if TYPE_CHECKING:  # ``X as X`` exports it
    from ._context import Setup as Setup
    from ._credential import Credential as Credential
    from ._naming import Role as Role
    from ._operations.provision import IfExists as IfExists
    from ._outcomes import Problem as Problem
    from ._outcomes import ProblemKind as ProblemKind
    from ._outcomes import TenantAction as TenantAction
    from ._outcomes import TenantChecked as TenantChecked
    from ._outcomes import TenantCheckOutcome as TenantCheckOutcome
    from ._outcomes import TenantDone as TenantDone
    from ._outcomes import TenantEvent as TenantEvent
    from ._outcomes import TenantFailed as TenantFailed
    from ._outcomes import TenantMoved as TenantMoved
    from ._outcomes import TenantMoveOutcome as TenantMoveOutcome
    from ._outcomes import TenantOutcome as TenantOutcome
    from ._outcomes import TenantRemovalOutcome as TenantRemovalOutcome
    from ._outcomes import TenantRemoved as TenantRemoved
    from ._outcomes import TenantRepaired as TenantRepaired
    from ._outcomes import TenantRepairOutcome as TenantRepairOutcome
    from ._outcomes import TenantResult as TenantResult
    from ._outcomes import TenantSkipped as TenantSkipped
    from ._placement import ChooseCluster as ChooseCluster
    from ._placement import ClusterCapacity as ClusterCapacity
    from ._pools import TenantPools as TenantPools
    from ._records import Login as Login
    from ._records import Operation as Operation
    from ._records import OperationKind as OperationKind
    from ._records import TenantRecord as TenantRecord
    from ._records import TenantState as TenantState
    from ._role import TenantRole as TenantRole
    from ._stores import Claim as Claim
    from ._stores import Store as Store
    from ._stores import copy_records as copy_records
    from ._stores import rewrite_records as rewrite_records
    from ._stores.codec import RecordCodec as RecordCodec
    from ._stores.postgres import PostgresStore as PostgresStore
    from ._stores.sqlite import SQLiteStore as SQLiteStore
    from ._tenants import Tenants as Tenants
    from ._tenants import Usage as Usage

# As in ``aiodbclient`` itself: to list a store needs neither aiohttp nor an operation.
_MODULES = {
    "._context": "Setup",
    "._credential": "Credential",
    "._naming": "Role",
    "._operations.provision": "IfExists",
    "._outcomes": "Problem ProblemKind TenantAction TenantCheckOutcome TenantChecked TenantDone TenantEvent "
    "TenantFailed TenantMoveOutcome TenantMoved TenantOutcome TenantRemovalOutcome TenantRemoved "
    "TenantRepairOutcome TenantRepaired TenantResult TenantSkipped",
    "._placement": "ChooseCluster ClusterCapacity",
    "._pools": "TenantPools",
    "._records": "Login Operation OperationKind TenantRecord TenantState",
    "._role": "TenantRole",
    "._stores": "Claim Store copy_records rewrite_records",
    "._stores.codec": "RecordCodec",
    "._stores.postgres": "PostgresStore",
    "._stores.sqlite": "SQLiteStore",
    "._tenants": "Tenants Usage",
}

if not TYPE_CHECKING:
    _MODULE_OF = {name: module for module, names in _MODULES.items() for name in names.split()}
    __all__ = sorted([*_MODULE_OF, "errors"])

    def __getattr__(name: str) -> Any:
        """Import a public name on its first use."""
        if name not in _MODULE_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value = getattr(import_module(_MODULE_OF[name], __name__), name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
