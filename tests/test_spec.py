"""The client's requests and results, compared with the provider's API description."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any

import pytest
import yaml
from attrs import fields_dict, frozen
from openapi_schema_validator import OAS30WriteValidator
from yarl import URL

from aiodbclient import (
    Cluster,
    DatabaseClient,
    Engine,
    KafkaACL,
    KafkaPermission,
    MongoRole,
    MongoUserSettings,
    MySQLAuthPlugin,
    MySQLSettings,
    OpenSearchACL,
    OpenSearchPermission,
    RetryPolicy,
    User,
    UserRole,
    UserSettings,
)
from aiodbclient.errors import (
    APIError,
    AuthenticationError,
    DatabaseClientError,
    NotFoundError,
    RateLimitError,
    ServerError,
)

from .conftest import MakeClient
from .requirements import description
from .server import CLUSTER, Server, says

pytestmark = pytest.mark.described

JSON = dict[str, Any]
OF_CLUSTER = "/v2/databases/{database_cluster_uuid}"
OF_USERS, OF_USER = OF_CLUSTER + "/users", OF_CLUSTER + "/users/{username}"
OF_DBS, OF_DB = OF_CLUSTER + "/dbs", OF_CLUSTER + "/dbs/{database_name}"
SHA2 = MySQLSettings(MySQLAuthPlugin.CACHING_SHA2_PASSWORD)
KAFKA = UserSettings(acl=[KafkaACL("events", KafkaPermission.CONSUME), KafkaACL("logs", "admin", id="acl1")])
SEARCH = UserSettings(opensearch_acl=[OpenSearchACL("logs-*", OpenSearchPermission.READ), OpenSearchACL(index="x")])
MONGO = UserSettings(mongo_user_settings=MongoUserSettings(["app"], MongoRole.READ_WRITE))
REPLICATION = UserSettings(pg_allow_replication=True)

Call = Callable[[DatabaseClient], Awaitable[Any]]


@frozen
class Operation:
    """One of the twelve operations: its place in the description, and all ways to call it."""

    method: str
    template: str
    calls: tuple[Call, ...]
    filled: Mapping[str, str] = {}

    @property
    def path(self) -> str:
        return self.template.format(database_cluster_uuid=CLUSTER, **self.filled)


def users(engine: str, call: Callable[[Any], Awaitable[Any]]) -> Call:
    return lambda client: call(client.cluster(CLUSTER, engine=engine).users)


def dbs(call: Callable[[Any], Awaitable[Any]]) -> Call:
    return lambda client: call(client.cluster(CLUSTER, engine="pg").dbs)


A_USER, A_DB = {"username": "app-01"}, {"database_name": "alpha"}
OPERATIONS = {
    "clusters.list": Operation(
        "get", "/v2/databases", (lambda c: c.clusters.list(), lambda c: c.clusters.list(tag_name="production"))
    ),
    "clusters.get": Operation(
        "get", OF_CLUSTER, (lambda c: c.clusters.get(CLUSTER), lambda c: c.cluster(CLUSTER).info())
    ),
    "users.list": Operation("get", OF_USERS, (users("pg", lambda u: u.list()),)),
    "users.create": Operation(
        "post",
        OF_USERS,
        (
            users("pg", lambda u: u.create("app-01")),
            users("pg", lambda u: u.create("app-01", settings=REPLICATION)),
            users("mysql", lambda u: u.create("app-01", SHA2)),
            users("kafka", lambda u: u.create("app-01", settings=KAFKA)),
            users("opensearch", lambda u: u.create("app-01", settings=SEARCH)),
            users("mongodb", lambda u: u.create("app-01", settings=MONGO)),
            users("mongodb", lambda u: u.create("app-01", readonly=True)),
            users("mongodb", lambda u: u.create("app-01", readonly=False)),
        ),
    ),
    "users.get": Operation("get", OF_USER, (users("pg", lambda u: u.get("app-01")),), A_USER),
    "users.update": Operation(
        "put",
        OF_USER,
        (
            users("pg", lambda u: u.update("app-01", REPLICATION)),
            users("pg", lambda u: u.update("app-01", UserSettings())),
            users("kafka", lambda u: u.update("app-01", KAFKA)),
            users("opensearch", lambda u: u.update("app-01", SEARCH)),
            users("mongodb", lambda u: u.update("app-01", MONGO)),
        ),
        A_USER,
    ),
    "users.delete": Operation("delete", OF_USER, (users("pg", lambda u: u.delete("app-01")),), A_USER),
    "users.reset_auth": Operation(
        "post",
        OF_USER + "/reset_auth",
        (users("pg", lambda u: u.reset_auth("app-01")), users("mysql", lambda u: u.reset_auth("app-01", SHA2))),
        A_USER,
    ),
    "dbs.list": Operation("get", OF_DBS, (dbs(lambda d: d.list()),)),
    "dbs.create": Operation("post", OF_DBS, (dbs(lambda d: d.create("alpha")),)),
    "dbs.get": Operation("get", OF_DB, (dbs(lambda d: d.get("alpha")),), A_DB),
    "dbs.delete": Operation("delete", OF_DB, (dbs(lambda d: d.delete("alpha")),), A_DB),
}
CALLS = [
    pytest.param(name, call, id=f"{name}-{number}")
    for name, operation in OPERATIONS.items()
    for number, call in enumerate(operation.calls, 1)
]
FIRST_CALLS = [pytest.param(name, operation.calls[0], id=name) for name, operation in OPERATIONS.items()]

# Members that Cluster omits: work with users and dbs does not need them.
NOT_OF_A_CLUSTER = {
    "maintenance_window",
    "metrics_endpoints",
    "num_nodes",
    "rules",
    "version_end_of_availability",
    "version_end_of_life",
}


@pytest.fixture(scope="session")
def spec() -> JSON:
    """The provider's API description, with every reference resolved."""
    path = description("databases.openapi.yaml")
    described: JSON = yaml.load(path.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return described


def test_the_description_has_no_other_operation(spec: JSON) -> None:
    described = {(method, path) for path, methods in spec["paths"].items() for method in methods}
    assert described == {(operation.method, operation.template) for operation in OPERATIONS.values()}
    assert len(described) == 12


@pytest.mark.parametrize(("name", "call"), CALLS)
async def test_a_request_is_as_described(
    spec: JSON, name: str, call: Call, server: Server, make_client: MakeClient
) -> None:
    operation = OPERATIONS[name]
    described = spec["paths"][operation.template][operation.method]
    status, examples = success(described)
    server.will(says(status, examples[0]))

    await call(make_client())

    [request] = server.requests
    url = URL(request.path)
    assert (request.method.lower(), url.path) == (operation.method, operation.path)
    # The description names per_page for other lists of the API. Terraform and doctl send it to these too.
    query = set(url.query) - {"per_page"}
    assert query <= {each["name"] for each in described.get("parameters", ()) if each["in"] == "query"}
    if "requestBody" not in described:
        assert request.body is None
        return
    assert request.headers["content-type"] == "application/json"
    schema = described["requestBody"]["content"]["application/json"]["schema"]
    OAS30WriteValidator(schema).validate(request.body)
    assert not list(undocumented(schema, request.body))


@pytest.mark.parametrize(("name", "call"), FIRST_CALLS)
async def test_an_answer_comes_back_whole(
    spec: JSON, name: str, call: Call, server: Server, make_client: MakeClient
) -> None:
    """The description's own examples, and an answer that has every documented member."""
    operation = OPERATIONS[name]
    described = spec["paths"][operation.template][operation.method]
    status, answers = success(described)
    if status != 204:
        answers = [*answers, complete(described["responses"][str(status)]["content"]["application/json"]["schema"])]
    for answer in answers:
        if answer is not None:
            answer = about_what_was_asked(answer)
        server.will(says(status, answer))
        result = await call(make_client())
        if status == 204:
            assert result is None
        else:
            [(_, answered)] = ((key, value) for key, value in answer.items() if key not in ("links", "meta"))
            assert not list(differences(answered, result))
    assert len(server.requests) == len(answers)


@pytest.mark.parametrize(("name", "call"), FIRST_CALLS)
async def test_an_error_is_the_one_that_is_described(
    spec: JSON, name: str, call: Call, server: Server, make_client: MakeClient
) -> None:
    operation = OPERATIONS[name]
    described = spec["paths"][operation.template][operation.method]["responses"]
    types = {401: AuthenticationError, 404: NotFoundError, 429: RateLimitError, 500: ServerError}
    for status, error_type in types.items():
        example = described[str(status)]["content"]["application/json"]["example"]
        server.will(says(status, example))
        with pytest.raises(DatabaseClientError) as caught:
            # One try, so that the first failure is raised.
            await call(make_client(retry=RetryPolicy(max_tries=1)))
        assert type(caught.value) is error_type
        assert isinstance(caught.value, APIError)
        assert (caught.value.status, caught.value.id, caught.value.message) == (
            status,
            example["id"],
            example["message"],
        )


def test_every_documented_value_has_a_member(spec: JSON) -> None:
    cluster = members(spec["paths"][OF_CLUSTER]["get"]["responses"]["200"]["content"]["application/json"]["schema"])
    cluster = members(cluster["database"])
    user = members(cluster["users"]["items"])
    settings = members(user["settings"])
    documented: list[tuple[type[StrEnum], JSON]] = [
        (Engine, cluster["engine"]),
        (UserRole, user["role"]),
        (MySQLAuthPlugin, members(user["mysql_settings"])["auth_plugin"]),
        (KafkaPermission, members(settings["acl"]["items"])["permission"]),
        (OpenSearchPermission, members(settings["opensearch_acl"]["items"])["permission"]),
        (MongoRole, members(settings["mongo_user_settings"])["role"]),
    ]
    for enum, schema in documented:
        assert {member.value for member in enum} == set(schema["enum"])


def test_the_models_name_what_is_documented(spec: JSON) -> None:
    schema = spec["paths"][OF_CLUSTER]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    cluster = members(members(schema)["database"])
    assert members(cluster.pop("do_settings")).keys() == {"service_cnames"} <= set(fields_dict(Cluster))
    assert set(cluster) - set(fields_dict(Cluster)) == NOT_OF_A_CLUSTER
    assert set(members(cluster["users"]["items"])) == set(fields_dict(User))


def about_what_was_asked(answer: JSON) -> JSON:
    """Adapt ``answer`` to the cluster, user or db of our call. Some examples answer a call for another one."""
    names = {"database": {"id": CLUSTER}, "user": {"name": "app-01"}, "db": {"name": "alpha"}}
    return {key: value | names[key] if key in names else value for key, value in answer.items()}


def success(described: JSON) -> tuple[int, list[Any]]:
    """The documented success status, and the examples of its answer."""
    [status] = [status for status in described["responses"] if status.startswith("2")]
    content = described["responses"][status].get("content")
    if content is None:
        return int(status), [None]
    content = content["application/json"]
    examples = [each["value"] for each in content["examples"].values()] if "examples" in content else []
    return int(status), examples or [content["example"]]


def members(schema: JSON) -> dict[str, JSON]:
    """The schemas of an object's members, including its ``allOf``."""
    found: dict[str, JSON] = dict(schema.get("properties", {}))
    for part in schema.get("allOf", ()):
        found |= members(part)
    return found


def undocumented(schema: JSON, value: Any, at: str = "") -> Iterator[str]:
    """The paths of members of ``value`` that ``schema`` does not have. A server may silently ignore them."""
    if isinstance(value, dict):
        known = members(schema)
        for key, member in value.items():
            if key in known:
                yield from undocumented(known[key], member, f"{at}.{key}")
            else:
                yield f"{at}.{key}"
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from undocumented(schema["items"], item, f"{at}[{number}]")


def complete(schema: JSON) -> Any:
    """A value with every documented member."""
    known = members(schema)
    if known:
        return {key: complete(member) for key, member in known.items()}
    if "enum" in schema:
        return schema["enum"][-1]
    match schema.get("type"):
        case "array":
            return [complete(schema["items"])]
        case "boolean":
            return True
        case "integer":
            return 7
        case _:
            return "2026-11-24T08:30:00Z" if schema.get("format") == "date-time" else "text"


def differences(answered: Any, result: Any, at: str = "") -> Iterator[str]:
    """The paths where ``result`` lacks a value of the API's answer."""
    if isinstance(answered, dict):
        for key, member in answered.items():
            if isinstance(result, Cluster) and key == "do_settings":
                yield from differences(member["service_cnames"], result.service_cnames, f"{at}.service_cnames")
            elif not (isinstance(result, Cluster) and key in NOT_OF_A_CLUSTER):
                yield from differences(member, getattr(result, key, "no such field"), f"{at}.{key}")
    elif isinstance(answered, list):
        if not isinstance(result, list) or len(result) != len(answered):
            yield f"{at}: {result!r}"
        else:
            for number, pair in enumerate(zip(answered, result, strict=True)):
                yield from differences(*pair, f"{at}[{number}]")
    elif isinstance(result, datetime):
        if result != datetime.fromisoformat(answered):
            yield f"{at}: {result!r}"
    elif result != (answered if answered != "" else None) or isinstance(result, bool) is not isinstance(answered, bool):
        yield f"{at}: {answered!r} became {result!r}"
