"""Async-first, typed SDK for the users and databases of DigitalOcean's managed database clusters."""

from typing import TYPE_CHECKING

from . import errors as errors
from ._lazy import lazily

if TYPE_CHECKING:  # ``X as X`` exports it
    from ._bulk.outcomes import Action as Action
    from ._bulk.outcomes import DatabaseDone as DatabaseDone
    from ._bulk.outcomes import DatabaseOutcome as DatabaseOutcome
    from ._bulk.outcomes import Failed as Failed
    from ._bulk.outcomes import Outcome as Outcome
    from ._bulk.outcomes import RemovalOutcome as RemovalOutcome
    from ._bulk.outcomes import Removed as Removed
    from ._bulk.outcomes import UserDone as UserDone
    from ._bulk.outcomes import UserOutcome as UserOutcome
    from ._bulk.run import Run as Run
    from ._http.events import RequestEvent as RequestEvent
    from ._http.retry import RetryPolicy as RetryPolicy
    from ._version import __version__ as __version__
    from .client import DatabaseClient as DatabaseClient
    from .clusters import ClusterClient as ClusterClient
    from .clusters import ClustersAPI as ClustersAPI
    from .dbs import DatabasesAPI as DatabasesAPI
    from .engines import Capabilities as Capabilities
    from .engines import Engine as Engine
    from .models import Cluster as Cluster
    from .models import ClusterStatus as ClusterStatus
    from .models import Connection as Connection
    from .models import Database as Database
    from .models import KafkaACL as KafkaACL
    from .models import KafkaPermission as KafkaPermission
    from .models import MongoRole as MongoRole
    from .models import MongoUserSettings as MongoUserSettings
    from .models import MySQLAuthPlugin as MySQLAuthPlugin
    from .models import MySQLSettings as MySQLSettings
    from .models import NewUser as NewUser
    from .models import OpenSearchACL as OpenSearchACL
    from .models import OpenSearchPermission as OpenSearchPermission
    from .models import User as User
    from .models import UserRole as UserRole
    from .models import UserSettings as UserSettings
    from .rate_limiter import RateLimiter as RateLimiter
    from .rate_limiter import RateLimitStatus as RateLimitStatus
    from .rate_limiter import Snapshot as Snapshot
    from .rate_limiter import Window as Window
    from .users import UsersAPI as UsersAPI

# Each name is imported on its first use: ``aiodbclient --help`` needs none of them, and aiohttp takes 100 ms.
_HOMES = {
    "._bulk.outcomes": "Action DatabaseDone DatabaseOutcome Failed Outcome RemovalOutcome Removed UserDone UserOutcome",
    "._bulk.run": "Run",
    "._http.events": "RequestEvent",
    "._http.retry": "RetryPolicy",
    "._version": "__version__",
    ".client": "DatabaseClient",
    ".clusters": "ClusterClient ClustersAPI",
    ".dbs": "DatabasesAPI",
    ".engines": "Capabilities Engine",
    ".models": "Cluster ClusterStatus Connection Database KafkaACL KafkaPermission MongoRole MongoUserSettings "
    "MySQLAuthPlugin MySQLSettings NewUser OpenSearchACL OpenSearchPermission User UserRole UserSettings",
    ".rate_limiter": "RateLimiter RateLimitStatus Snapshot Window",
    ".users": "UsersAPI",
}

if not TYPE_CHECKING:  # a type checker would take any name for one of this module
    __getattr__, __dir__, __all__ = lazily(__name__, _HOMES)
    __all__.append("errors")
