"""A cluster of the reader's, and names on it that are removed after each test."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

import pytest

from aiodbclient import (
    Cluster,
    ClusterInfo,
    DatabaseClient,
    KafkaACL,
    KafkaPermission,
    MongoRole,
    MongoUserSettings,
    NewUser,
    OpenSearchACL,
    OpenSearchPermission,
    User,
    UserSettings,
)
from aiodbclient.engines import CAPABILITIES, Engine
from aiodbclient.errors import NotFoundError

TOKENS = ("DIGITALOCEAN_TOKEN", "DIGITALOCEAN_ACCESS_TOKEN")
LAG = 15  # seconds for which the API may list a user that was deleted
# A MongoDB user without settings is an administrator.
SETTINGS: dict[str, UserSettings] = {
    Engine.MONGODB: UserSettings(mongo_user_settings=MongoUserSettings(["live"], MongoRole.READ_ONLY)),
    Engine.KAFKA: UserSettings(acl=[KafkaACL("live.*", KafkaPermission.CONSUME)]),
    Engine.OPENSEARCH: UserSettings(opensearch_acl=[OpenSearchACL("live.*", OpenSearchPermission.READ)]),
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--cluster", metavar="NAME_OR_ID", help="the cluster of yours that tests/live may change")


def pytest_configure(config: pytest.Config) -> None:
    if not config.getoption("--cluster"):
        raise pytest.UsageError("tests/live changes a cluster of yours: name it with --cluster")
    if not any(map(os.environ.get, TOKENS)):
        raise pytest.UsageError("tests/live needs an API token: set DIGITALOCEAN_TOKEN")


@pytest.fixture
def no_other_api() -> None:
    """Keep the token, which other tests hide."""


@pytest.fixture(scope="session")
def warm() -> None:
    """Start no embedded server."""


@pytest.fixture
async def client() -> AsyncIterator[DatabaseClient]:
    async with DatabaseClient() as client:
        yield client


@pytest.fixture
async def info(request: pytest.FixtureRequest, client: DatabaseClient) -> ClusterInfo:
    """The cluster. Its engine must have users."""
    wanted = request.config.getoption("--cluster")
    found = [each for each in await client.clusters.list() if wanted in (each.id, each.name)]
    if len(found) != 1:
        raise pytest.UsageError(f"{len(found)} clusters of the account are called {wanted!r}")
    if found[0].engine in CAPABILITIES and not CAPABILITIES[found[0].engine].users:
        pytest.skip(f"a {found[0].engine} has no users")
    return found[0]


@pytest.fixture
def cluster(client: DatabaseClient, info: ClusterInfo) -> Cluster:
    return client.cluster(info.id, engine=info.engine)


@pytest.fixture
async def prefix(cluster: Cluster) -> AsyncIterator[str]:
    """What the names of the test begin with. Users and databases of such a name are deleted after the test."""
    prefix = f"live-{secrets.token_hex(4)}"
    yield prefix
    left: list[str] = []
    for wait in (0.1, *[1.0] * LAG):
        left = await delete_all(cluster, prefix)
        if not left:
            return
        await asyncio.sleep(wait)
    pytest.fail(f"delete these by hand: {', '.join(left)}")


async def delete_all(cluster: Cluster, prefix: str) -> list[str]:
    """Delete the listed users and databases whose name begins with ``prefix``. Returns their names."""
    users = [user.name for user in await cluster.users.list() if user.name.startswith(prefix)]
    dbs = list[str]()
    if CAPABILITIES[Engine(cluster.engine or "")].dbs:
        dbs = [db.name for db in await cluster.dbs.list() if db.name.startswith(prefix)]
    for delete, names in ((cluster.dbs.delete, dbs), (cluster.users.delete, users)):
        for name in names:
            with suppress(NotFoundError):  # deleted, and still listed
                await delete(name)
    return [*users, *dbs]


@pytest.fixture
def new_user(info: ClusterInfo, prefix: str) -> Callable[[str], NewUser]:
    """Make a user's name and settings of an ending."""
    return lambda end: NewUser(f"{prefix}-{end}", settings=SETTINGS.get(info.engine))


@pytest.fixture
async def user(cluster: Cluster, new_user: Callable[[str], NewUser]) -> User:
    """A user that the API made."""
    new = new_user("a")
    return await cluster.users.create(new.name, settings=new.settings)
