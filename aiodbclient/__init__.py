"""Async-first, typed SDK for the users and databases of DigitalOcean's managed database clusters."""

from typing import TYPE_CHECKING

from . import errors
from ._lazy import lazily

if TYPE_CHECKING:
    from ._bulk.outcomes import (
        Action,
        DatabaseDone,
        DatabaseOutcome,
        Failed,
        Outcome,
        PlanOutcome,
        RemovalOutcome,
        Removed,
        UserDone,
        UserOutcome,
    )
    from ._bulk.plan import UserPlan
    from ._bulk.run import Run
    from ._pacing.budget import Budget, RateBudget, RateLimitStatus, Snapshot, Window
    from ._request.events import RequestEvent
    from ._request.retry import RetryPolicy
    from ._version import __version__
    from .client import DatabaseClient
    from .clusters import ClusterClient, ClustersAPI
    from .dbs import DatabasesAPI
    from .engines import Capabilities, Engine
    from .models import (
        Cluster,
        ClusterStatus,
        Connection,
        Database,
        KafkaACL,
        KafkaPermission,
        MongoRole,
        MongoUserSettings,
        MySQLAuthPlugin,
        MySQLSettings,
        NewUser,
        OpenSearchACL,
        OpenSearchPermission,
        User,
        UserRole,
        UserSettings,
    )
    from .users import UsersAPI

__all__ = [
    "Action",
    "Budget",
    "Capabilities",
    "Cluster",
    "ClusterClient",
    "ClusterStatus",
    "ClustersAPI",
    "Connection",
    "Database",
    "DatabaseClient",
    "DatabaseDone",
    "DatabaseOutcome",
    "DatabasesAPI",
    "Engine",
    "Failed",
    "KafkaACL",
    "KafkaPermission",
    "MongoRole",
    "MongoUserSettings",
    "MySQLAuthPlugin",
    "MySQLSettings",
    "NewUser",
    "OpenSearchACL",
    "OpenSearchPermission",
    "Outcome",
    "PlanOutcome",
    "RateBudget",
    "RateLimitStatus",
    "RemovalOutcome",
    "Removed",
    "RequestEvent",
    "RetryPolicy",
    "Run",
    "Snapshot",
    "User",
    "UserDone",
    "UserOutcome",
    "UserPlan",
    "UserRole",
    "UserSettings",
    "UsersAPI",
    "Window",
    "__version__",
    "errors",
]

# Each name is imported on its first use: ``aiodbclient --help`` needs none of them, and aiohttp takes 100 ms.
_HOMES = {
    "._bulk.outcomes": "Action DatabaseDone DatabaseOutcome Failed Outcome PlanOutcome RemovalOutcome Removed UserDone "
    "UserOutcome",
    "._bulk.plan": "UserPlan",
    "._bulk.run": "Run",
    "._pacing.budget": "Budget RateBudget RateLimitStatus Snapshot Window",
    "._request.events": "RequestEvent",
    "._request.retry": "RetryPolicy",
    "._version": "__version__",
    ".client": "DatabaseClient",
    ".clusters": "ClusterClient ClustersAPI",
    ".dbs": "DatabasesAPI",
    ".engines": "Capabilities Engine",
    ".models": "Cluster ClusterStatus Connection Database KafkaACL KafkaPermission MongoRole MongoUserSettings "
    "MySQLAuthPlugin MySQLSettings NewUser OpenSearchACL OpenSearchPermission User UserRole UserSettings",
    ".users": "UsersAPI",
}

if not TYPE_CHECKING:  # a type checker would take any name for one of this module
    __getattr__, __dir__ = lazily(__name__, _HOMES)
