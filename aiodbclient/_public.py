"""The public names of ``aiodbclient``. ``X as X`` exports a name to type checkers."""

from ._http.events import RequestEvent as RequestEvent
from ._http.retry import RetryPolicy as RetryPolicy
from .client import DatabaseClient as DatabaseClient
from .clusters import Cluster as Cluster
from .clusters import ClustersAPI as ClustersAPI
from .dbs import DatabasesAPI as DatabasesAPI
from .engines import Capabilities as Capabilities
from .engines import Engine as Engine
from .models import ClusterInfo as ClusterInfo
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
from .users import UsersAPI as UsersAPI
