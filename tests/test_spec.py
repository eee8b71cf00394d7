"""The client and the sandbox, compared with the provider's API description."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from openapi_schema_validator import OAS30ReadValidator, OAS30WriteValidator
from yarl import URL

from aiodbclient import Cluster, ClusterInfo, DatabaseClient, Engine, KafkaACL, UserSettings, models
from aiodbclient._http import operations
from aiodbclient._http.operations import Operation
from aiodbclient.rate_limiter import Window
from aiodbclient.sandbox import Sandbox

from .conftest import MakeClient
from .requirements import description
from .sandbox.conftest import caller
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
    return loaded("databases")


def loaded(name: str) -> JSON:
    text = description(f"{name}.openapi.yaml").read_text()
    described: JSON = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
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


# 422 is not a failure for data that the description allows: it cannot express that a name is taken or too long.
CONFIG = """
[parameters]
"path.database_cluster_uuid" = {cluster}
[checks]
positive_data_acceptance.expected-statuses = ["2xx", "404", "422"]
"""


OF_CLUSTERS = {"clusters.list", "clusters.get", "clusters.ca"}
OF_BOTH = {f"{kind}.{verb}" for kind in ("users", "dbs") for verb in ("list", "get", "create", "delete")}
EVERYTHING = OF_CLUSTERS | OF_BOTH | {"users.update", "users.reset_auth"}
SYSTEMATIC, RANDOM = "coverage", "examples,fuzzing,stateful"


@pytest.fixture(scope="module")
def described(spec: JSON, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The descriptions as one file."""
    whole = spec | {"paths": spec["paths"] | loaded("ca")["paths"]}
    file = tmp_path_factory.mktemp("described") / "openapi.json"
    file.write_text(json.dumps(whole, default=str))
    return file


@pytest.mark.thorough
@pytest.mark.usefixtures("_aiodbclient_servers")
@pytest.mark.parametrize(
    ("engine", "backend", "phases"),
    [
        ("pg", "postgres", f"{SYSTEMATIC},{RANDOM}"),
        *((engine, "memory", SYSTEMATIC) for engine in ("mysql", "mongodb", "kafka", "opensearch")),
    ],
)
def test_every_answer_is_as_described(
    described: Path, tmp_path: Path, engine: str, backend: Literal["postgres", "memory"], phases: str
) -> None:
    with Sandbox(windows=[]) as sandbox:
        cluster = asyncio.run(sandbox.add_cluster(engine, backend=backend))
        assert attacked(sandbox, described, tmp_path, cluster, "--phases", phases) > 400
        # every operation of the engine succeeded at least once
        assert {operation for operation, status in sandbox.counts if status and status < 300} == EVERYTHING


async def test_refusals_are_as_described(spec: JSON) -> None:
    """So are the answers that no request of schemathesis meets: of faults, and of the rate limit."""
    responses = spec["paths"]["/v2/databases"]["get"]["responses"]
    async with Sandbox(windows=[Window(4, 60.0)]) as sandbox, caller(sandbox) as call:
        for nth, status in enumerate((401, 500, 503), 1):
            sandbox.faults.add(status=status, nth=nth)
        for status in (401, 500, 503, 200, 429):
            answer = await call("GET", "/v2/databases")
            assert answer.status == status
            described_answer = responses.get(str(status)) or responses["default"]
            assert all(answer.headers[name].isdigit() for name in described_answer["headers"])
            OAS30ReadValidator(described_answer["content"]["application/json"]["schema"]).validate(answer.json)


def attacked(sandbox: Sandbox, described: Path, tmp_path: Path, cluster: str, *more: str) -> int:
    """Run schemathesis on ``cluster``. Returns how many cases passed."""
    config = tmp_path / "schemathesis.toml"
    config.write_text(CONFIG.format(cluster=json.dumps(cluster)))
    options = ["--url", sandbox.url, "--header", f"Authorization: Bearer {sandbox.token}"]
    schemathesis = Path(sys.executable).with_name("schemathesis")
    options += ["--max-examples", "4", "--seed", "1", "--continue-on-failure", "--no-color", *more]
    command: list[str | Path] = [schemathesis, "--config-file", config, "run", described, *options]
    environment = os.environ | {"COLUMNS": "120"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stdout
    counted = re.search(r"(\d+) generated, (\d+) passed", done.stdout)
    assert counted, done.stdout
    assert int(counted[1]) == int(counted[2])
    return int(counted[2])
