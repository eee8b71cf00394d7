"""The client's requests and results, compared with the provider's API description."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from datetime import datetime
from enum import StrEnum
from typing import Any

import pytest
import yaml
from openapi_schema_validator import OAS30WriteValidator
from yarl import URL

from aiodbclient import Cluster, ClusterInfo, DatabaseClient, Engine, KafkaACL, UserSettings, models
from aiodbclient._http import operations
from aiodbclient._http.operations import Operation

from .conftest import MakeClient
from .requirements import description
from .server import CLUSTER, Server, says
from .test_operations import CASES

pytestmark = pytest.mark.described

JSON = dict[str, Any]
Call = Callable[[DatabaseClient], Awaitable[Any]]
OF_CLUSTER = "/v2/databases/{database_cluster_uuid}"
NAMES = {"users": "alice", "dbs": "a"}  # that the calls of test_operations are about
KAFKA = UserSettings(acl=[KafkaACL("events", models.KafkaPermission.CONSUME), KafkaACL("logs", "admin", id="acl1")])


def of_cluster(engine: str, call: Callable[[Cluster], Awaitable[Any]]) -> Call:
    return lambda client: call(client.cluster(CLUSTER, engine=engine))


CALLS: dict[str, Call] = {
    "clusters.list": lambda client: client.clusters.list(),
    "clusters.list by tag": lambda client: client.clusters.list(tag_name="production"),
    "clusters.get": lambda client: client.clusters.get(CLUSTER),
    **{name: of_cluster(case.engine, case.call) for name, case in CASES.items() if "null" not in name},
    "users.create not read-only": of_cluster("mongodb", lambda c: c.users.create("alice", readonly=False)),
    "users.update without settings": of_cluster("pg", lambda c: c.users.update("alice", UserSettings())),
    "users.update for kafka": of_cluster("kafka", lambda c: c.users.update("alice", KAFKA)),
}
OPERATIONS = {
    each.name: each for each in vars(operations).values() if isinstance(each, Operation) and each.name != "clusters.ca"
}


def described_in(spec: JSON, name: str) -> tuple[Operation, JSON]:
    """The operation of a call, and its description."""
    operation = OPERATIONS[name.partition(" ")[0]]
    return operation, spec["paths"][template_of(operation)][operation.method.lower()]


def template_of(operation: Operation) -> str:
    name = "{username}" if operation.on == "users" else "{database_name}"
    return operation.template.replace("{cluster}", "{database_cluster_uuid}").replace("{name}", name)


# Members that ClusterInfo omits: work with users and dbs does not need them.
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


def test_description_has_no_other_operation(spec: JSON) -> None:
    described = {(method.upper(), path) for path, methods in spec["paths"].items() for method in methods}
    assert described == {(operation.method, template_of(operation)) for operation in OPERATIONS.values()}
    assert len(described) == 12


@pytest.mark.parametrize("name", CALLS)
async def test_request_is_as_described(spec: JSON, name: str, server: Server, make_client: MakeClient) -> None:
    operation, described = described_in(spec, name)
    status, examples = success(described)
    server.will(says(status, about_what_was_asked(examples[0])))

    await CALLS[name](make_client())

    [request] = server.requests
    url = URL(request.path)
    assert (request.method, url.path) == (operation.method, operation.path(CLUSTER, NAMES.get(operation.on, ...)))
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


@pytest.mark.parametrize("name", OPERATIONS)
async def test_answer_comes_back_whole(spec: JSON, name: str, server: Server, make_client: MakeClient) -> None:
    """The description's own examples, and an answer that has every documented member."""
    _, described = described_in(spec, name)
    status, answers = success(described)
    if status != 204:
        answers = [*answers, complete(described["responses"][str(status)]["content"]["application/json"]["schema"])]
    for answer in map(about_what_was_asked, answers):
        server.will(says(status, answer))
        result = await CALLS[name](make_client())
        if answer is None:
            assert result is None
        else:
            [(_, answered)] = ((key, value) for key, value in answer.items() if key not in ("links", "meta"))
            assert not list(differences(answered, result))
    assert len(server.requests) == len(answers)


def test_every_documented_value_has_a_member(spec: JSON) -> None:
    cluster = members(spec["paths"][OF_CLUSTER]["get"]["responses"]["200"]["content"]["application/json"]["schema"])
    cluster = members(cluster["database"])
    user = members(cluster["users"]["items"])
    settings = members(user["settings"])
    documented: list[tuple[type[StrEnum], JSON]] = [
        (Engine, cluster["engine"]),
        (models.UserRole, user["role"]),
        (models.MySQLAuthPlugin, members(user["mysql_settings"])["auth_plugin"]),
        (models.KafkaPermission, members(settings["acl"]["items"])["permission"]),
        (models.OpenSearchPermission, members(settings["opensearch_acl"]["items"])["permission"]),
        (models.MongoRole, members(settings["mongo_user_settings"])["role"]),
    ]
    for enum, schema in documented:
        assert {member.value for member in enum} == set(schema["enum"])


def about_what_was_asked(answer: JSON | None) -> JSON | None:
    """Adapt ``answer`` to the cluster, user or db of our call. Some examples answer a call for another one."""
    if answer is None:
        return None
    names = {"database": {"id": CLUSTER}, "user": {"name": NAMES["users"]}, "db": {"name": NAMES["dbs"]}}
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
            if isinstance(result, ClusterInfo) and key == "do_settings":
                yield from differences(member["service_cnames"], result.service_cnames, f"{at}.service_cnames")
            elif not (isinstance(result, ClusterInfo) and key in NOT_OF_A_CLUSTER):
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
