"""For environments installed before the plugin moved into the package. To be deleted when none is left."""

from aiodbclient._pytest_plugin import *  # noqa: F403
from aiodbclient._pytest_plugin import _aiodbclient_servers as _aiodbclient_servers
