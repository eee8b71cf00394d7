"""``python -m aiodbclient.sandbox``, what other machines reach, and the pytest fixtures in another project's tests."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
from contextlib import AbstractContextManager, closing, nullcontext
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from aiodbclient.sandbox import Sandbox
from aiodbclient.sandbox.__main__ import main

from ..proc import line, passed_in, python
from ..waiting import HANG
from .conftest import caller

ID = "9cc10173-e9ea-4176-9dbc-a4cee4c4ff30"


def program(*arguments: str) -> AbstractContextManager[subprocess.Popen[str]]:
    return python("-m", "aiodbclient.sandbox", *arguments)


def read_start(process: subprocess.Popen[str]) -> Any:
    return json.loads(line(process))


def ask(url: str, token: str) -> tuple[int, Any, Any]:
    """The status, headers and JSON of the answer to a GET."""
    where = urlsplit(url)
    with closing(HTTPConnection(where.netloc)) as connection:
        connection.request("GET", where.path, headers={"authorization": f"Bearer {token}"})
        answer = connection.getresponse()
        return answer.status, answer.headers, json.load(answer)


def get(url: str, token: str) -> Any:
    return ask(url, token)[2]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_line_of_json_and_clean_stop(number: signal.Signals) -> None:
    arguments = ["--json", "--token", "mine", "--cluster", "opensearch=logs", "--cluster", "redis"]
    with program(*arguments) as process:
        started = read_start(process)
        assert list(started) == ["url", "token", "budget", "clusters"]
        assert started["token"] == "mine"
        assert [(list(cluster), cluster["name"], cluster["engine"]) for cluster in started["clusters"]] == [
            (["id", "name", "engine"], "logs", "opensearch"),
            (["id", "name", "engine"], "redis-1", "redis"),
        ]
        listed = get(f"{started['url']}/v2/databases", "mine")["databases"]
        assert [cluster["id"] for cluster in listed] == [cluster["id"] for cluster in started["clusters"]]
        assert [cluster["connection"]["ssl"] for cluster in listed] == [True, True]
        process.send_signal(number)
        assert process.wait(timeout=HANG) == 0
        assert process.communicate() == ("", "")


def test_text_says_what_stays(mysql_dsn: str) -> None:
    """What the sandbox created on a server of your own stays there."""
    with program("--cluster", f"mysql=shop: server={mysql_dsn}", "--cluster", "redis") as process:
        assert process.stderr is not None
        assert process.stdout is not None
        assert process.stderr.readline() == "The sandbox is starting ...\n"
        last = next(each for each in iter(process.stdout.readline, "") if each.startswith("Ctrl-C"))
    assert last == ("Ctrl-C stops it and deletes its data. Users and databases on your own server stay: shop.\n")


def test_arguments_of_a_file(tmp_path: Path) -> None:
    """The token is not in the process list."""
    headers = {"retry-after": "7", "x-why": "no reason"}
    faults: list[dict[str, Any]] = [
        {"operation": "clusters.get", "cluster": "b", "nth": 2, "status": 503, "headers": headers},
        {"operation": ["clusters.list", "clusters.get"], "cluster": "a", "status": 404},
    ]
    arguments = ["--json", "--token=dop hunter2", "--rate-limit=5/60", "--cluster=redis=a"]
    arguments += [f"--cluster=kafka=b: cluster_id={ID} online_after=60"]
    arguments += [f"--fault={json.dumps(fault)}" for fault in faults]
    (tmp_path / "arguments").write_text("\n".join(arguments))

    with program(f"@{tmp_path}/arguments") as process:
        started = read_start(process)
        assert (started["token"], started["clusters"][1]["id"]) == ("dop hunter2", ID)
        assert "hunter2" not in Path(f"/proc/{process.pid}/cmdline").read_text()
        every = f"{started['url']}/v2/databases"
        other, cluster = (f"{every}/{cluster['id']}" for cluster in started["clusters"])
        answers = [ask(url, started["token"]) for url in (cluster, cluster, other, cluster, every, every)]

    assert [status for status, _, _ in answers] == [200, 503, 404, 200, 200, 429]
    database, refused, limited = answers[0][2]["database"], answers[1][1], answers[5][1]
    assert (database["id"], database["status"]) == (ID, "creating")
    assert (refused["retry-after"], refused["x-why"]) == ("7", "no reason")
    assert limited["ratelimit-limit"] == "5000"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--rate-limit", "0/60"], 2, "REQUESTS/SECONDS"),
        (["--cluster", "pg=a: server=postgresql://u:hunter2@127.0.0.1:1/x"], 1, "cannot be used"),
        (
            ["--cluster", "pg=a server=postgresql://u:hunter2@127.0.0.1:1/x"],
            2,
            "unknown option in the text; the options",
        ),
        (["--cluster", ": server=postgresql://u:hunter2@127.0.0.1:1/x"], 2, "names no engine"),
        (
            ["--cluster", "mysql: server=/tmp"],
            1,
            "must be the URL of a running server, mysql://USER:PASSWORD@HOST:PORT",
        ),
        (["--cluster", "redis=a", "--cluster", "redis=a"], 1, "'a' exists already"),
        (["--cluster", "redis: cluster_id=mine"], 1, "cluster_id must be a UUID, not 'mine'"),
        (["--cluster", "redis: tags='a"], 2, "No closing quotation"),
        (["--cluster", "redis: sizes=1"], 2, "unknown option 'sizes'; the options are backend, server, connections, "),
        (["--fault", "users.create"], 2, "'users.create' is no fault: Expecting value"),
        (["--fault", '{"status": "many"}'], 2, "status must be a whole number from 200 to 599, not 'many'"),
        (["--cluster", "redis: online_after=soon"], 2, "'soon' is not a valid value of online_after"),
        (["@/nowhere"], 2, "No such file"),
        (["--port", "70000"], 2, "port must be from 0 to 65535, not 70000"),
        (["--port", "http"], 2, "invalid int value: 'http'"),
        (["--bind", "localhost"], 2, "bind must be an IPv4 address such as 0.0.0.0, not 'localhost'"),
    ],
)
def test_failures_have_an_exit_code(
    arguments: list[str], code: int, message: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    try:
        returned: Any = main(arguments)
    except SystemExit as error:
        returned = error.code
    printed = capfd.readouterr()
    assert returned == code
    assert message in printed.err
    assert "Traceback" not in printed.err
    assert "hunter2" not in printed.err
    assert printed.out == ""


async def test_database_host_is_the_requests() -> None:
    """The API names the database's host as the client knows this machine, so that containers reach it."""
    async with Sandbox(windows=[], bind="0.0.0.0") as sandbox, caller(sandbox) as call:
        cluster = f"/v2/databases/{await sandbox.add_cluster('pg', backend='postgres')}"
        shown = (await call("GET", cluster, headers={"host": "sandbox:8080"})).json["database"]["connection"]
        assert shown["host"] == "sandbox"
        for address in {"127.0.0.1", own_address()}:  # as if the name resolved to it
            async with await psycopg.AsyncConnection.connect(shown["uri"], hostaddr=address) as session:
                assert session.info.hostaddr == address


def own_address() -> str:
    """The address of this machine for other machines, if it has one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


async def test_default_bind_is_this_machine() -> None:
    for bind, others in (("127.0.0.1", False), ("0.0.0.0", True)):
        async with Sandbox(bind=bind) as sandbox:
            port = int(sandbox.url.rpartition(":")[2])
            with nullcontext() if others else pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.2", port)).close()


def test_printed_text_is_for_a_shell() -> None:
    arguments = ["--cluster", "redis: tags=a", "--cluster", "kafka", "--bind", "0.0.0.0"]
    with program(*arguments, "--token", "mine", "--rate-limit", "none") as process:
        assert process.stdout is not None
        printed = ""
        while "Ctrl-C" not in printed:
            printed += process.stdout.readline()
        assert printed.endswith("\nCtrl-C stops it and deletes its data.\n")
        exported = dict(re.findall(r"export (\w+)=(\S+)", printed))
        of_the_api = [f"DIGITALOCEAN_{name}" for name in ("API_URL", "TOKEN", "CLUSTER_ID")]
        assert list(exported) == [*of_the_api, "AIODBCLIENT_CLUSTER", "AIODBCLIENT_BUDGET"]
        assert (exported["AIODBCLIENT_CLUSTER"], exported["AIODBCLIENT_BUDGET"]) == ("redis-1", "none")
        assert printed.count("(no database server: it answers the API alone)") == 2
        url, cluster = exported["DIGITALOCEAN_API_URL"], exported["DIGITALOCEAN_CLUSTER_ID"]
        shown = get(f"{url}/v2/databases/{cluster}", "mine")["database"]
        assert (shown["engine"], shown["tags"]) == ("redis", ["a"])


ASYNC_TEST = """
import pytest

{mark}
async def test_signup(aiodbclient_sandbox, aiodbclient_client):
    cluster = aiodbclient_client.cluster(await aiodbclient_sandbox.add_cluster("pg", backend="memory"))
    user = await cluster.users.create("tenant")
    assert (await cluster.users.get("tenant")).password == user.password
    aiodbclient_sandbox.faults.add("users.get", status=503, nth=1)
    await cluster.users.get("tenant")
    assert [r.status for r in aiodbclient_sandbox.requests if r.operation == "users.get"] == [200, 503, 200]

{mark}
async def test_each_test_has_its_own(aiodbclient_sandbox):
    assert aiodbclient_sandbox.clusters == {{}}
    assert aiodbclient_sandbox.requests == []
"""
TENANTS_TEST = """
import psycopg, pytest

ports = []

{mark}
@pytest.mark.parametrize("again", range(3))
async def test_each_test_has_its_own_tenants(aiodbclient_tenants, aiodbclient_sandbox, again):
    credential = await aiodbclient_tenants.ensure("alpha")
    async with await psycopg.AsyncConnection.connect(credential.uri) as connection:
        await connection.execute("CREATE TABLE notes (text text)")  # is not there from the test before
        ports.append(connection.info.port)
    assert len(set(ports)) == 1
    assert len(aiodbclient_sandbox.clusters) == 1

{mark}
@pytest.mark.parametrize("aiodbclient_tenants", [{{"connections": 22}}], indirect=True)
async def test_the_cluster_has_the_options_of_the_test(aiodbclient_tenants):
    credential = await aiodbclient_tenants.ensure("alpha")
    async with await psycopg.AsyncConnection.connect(credential.uri) as connection:
        rows = await connection.execute("SELECT current_setting('max_connections')::int < 40")
        assert await rows.fetchone() == (True,)
"""
MYSQL_TEST = """
import pytest

@pytest.mark.parametrize("aiodbclient_tenants", [{"engine": "mysql", "server": "DSN"}], indirect=True)
async def test_tenant_of_own_mysql(aiodbclient_tenants):
    assert (await aiodbclient_tenants.ensure("of_the_fixture")).uri.startswith("mysql://")
"""
SYNC_TEST = """
import asyncio, urllib.request

def test_without_async(aiodbclient_sandbox):
    asyncio.run(aiodbclient_sandbox.add_cluster("redis"))
    request = urllib.request.Request(
        aiodbclient_sandbox.url + "/v2/databases", headers={"authorization": "Bearer " + aiodbclient_sandbox.token}
    )
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 200
"""
IDLE_TEST = """
import sys

def test_nothing_is_imported_unasked():
    assert "aiodbclient._pytest_plugin" in sys.modules
    assert not {"aiodbclient.client", "aiohttp", "attrs"} & set(sys.modules)
"""
STRICT = ["-o", "asyncio_mode=strict", "-o", "asyncio_default_fixture_loop_scope=function"]
AUTO = ["-o", "asyncio_mode=auto", *STRICT[2:]]
ONLY_ASYNCIO = ["-p", "no:aiohttp", "-p", "no:anyio", "-p", "no:schemathesis", "-p", "no:hypothesispytest"]
ONLY_ANYIO = ["-p", "no:asyncio", "-p", "no:aiohttp", "-p", "no:schemathesis", "-p", "no:hypothesispytest"]
ONLY_OURS = [*ONLY_ANYIO, "-p", "no:anyio", "-p", "no:xdist"]


@pytest.mark.parametrize(
    ("tests", "mark", "options"),
    [
        pytest.param([ASYNC_TEST], "", [*ONLY_ASYNCIO, *AUTO], id="asyncio-auto"),
        pytest.param(
            [ASYNC_TEST, TENANTS_TEST],
            "@pytest.mark.asyncio",
            [*ONLY_ASYNCIO, *STRICT],
            id="asyncio-strict",
            marks=pytest.mark.thorough,
        ),
        pytest.param([ASYNC_TEST], "@pytest.mark.anyio", ONLY_ANYIO, id="anyio", marks=pytest.mark.thorough),
        pytest.param([IDLE_TEST, SYNC_TEST], "", ONLY_OURS, id="no other plugin"),  # the first one imports nothing
    ],
)
def test_the_fixtures_work_with(tmp_path: Path, tests: list[str], mark: str, options: list[str]) -> None:
    (tmp_path / "conftest.py").write_text("import pytest\n@pytest.fixture\ndef anyio_backend(): return 'asyncio'\n")
    for number, test in enumerate(tests):
        text = test.format(mark=mark) if "{mark}" in test else test
        (tmp_path / f"test_{number}.py").write_text(text)
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    passed, printed = passed_in(tmp_path, *options)
    assert passed == sum(test.count("def test_") for test in tests) + 2 * (TENANTS_TEST in tests)
    assert "warning" not in printed


def test_tenants_on_own_mysql(tmp_path: Path, mysql_dsn: str) -> None:
    (tmp_path / "test_it.py").write_text(MYSQL_TEST.replace("DSN", mysql_dsn))
    assert passed_in(tmp_path, *ONLY_ASYNCIO, *AUTO)[0] == 1
