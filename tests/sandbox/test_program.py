"""``python -m aiodbclient.sandbox``, and what other machines reach."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import psycopg
import pytest

from aiodbclient.sandbox import Sandbox
from aiodbclient.sandbox.__main__ import main

from ..proc import line, python
from ..waiting import HANG
from .conftest import caller

ID = "9cc10173-e9ea-4176-9dbc-a4cee4c4ff30"


def program(*arguments: str) -> AbstractContextManager[subprocess.Popen[str]]:
    return python("-m", "aiodbclient.sandbox", *arguments)


def read_start(process: subprocess.Popen[str]) -> Any:
    return json.loads(line(process))


def get(url: str, token: str) -> Any:
    with urllib.request.urlopen(urllib.request.Request(url, headers={"authorization": f"Bearer {token}"})) as answer:
        return json.load(answer)


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


def test_rate_limit() -> None:
    with program("--json", "--rate-limit", "2/60", "--cluster", "kafka") as process:
        started = read_start(process)
        for _ in range(2):
            get(f"{started['url']}/v2/databases", started["token"])
        with pytest.raises(urllib.error.HTTPError) as caught:
            get(f"{started['url']}/v2/databases", started["token"])
        with caught.value as answer:
            assert answer.status == 429
            assert answer.headers["ratelimit-limit"] == "5000"


def test_faults_and_ids_by_arguments() -> None:
    arguments = ["--cluster", "redis=a", "--cluster", f"kafka=b: cluster_id={ID} online_after=60"]
    headers = {"retry-after": "7", "x-why": "no reason"}
    faults: list[dict[str, Any]] = [
        {"operation": "clusters.get", "cluster": "b", "nth": 2, "status": 503, "headers": headers},
        {"operation": ["clusters.list", "clusters.get"], "cluster": "a", "status": 404},
    ]
    for fault in faults:
        arguments += ["--fault", json.dumps(fault)]
    with program("--json", *arguments) as process:
        started = read_start(process)
        other, cluster = (f"{started['url']}/v2/databases/{cluster['id']}" for cluster in started["clusters"])
        assert cluster.endswith(ID)
        database = get(cluster, started["token"])["database"]
        assert (database["id"], database["status"]) == (ID, "creating")
        for url, status in ((cluster, 503), (other, 404)):
            with pytest.raises(urllib.error.HTTPError) as caught:
                get(url, started["token"])
            with caught.value as answer:
                assert answer.status == status
                if status == 503:
                    assert (answer.headers["retry-after"], answer.headers["x-why"]) == ("7", "no reason")
        get(cluster, started["token"])


def test_secrets_may_come_from_a_file(tmp_path: Path) -> None:
    arguments = tmp_path / "arguments"
    arguments.write_text(f"--token=dop hunter2\n--cluster\nredis=cache: cluster_id={ID}\n--json\n")
    with program(f"@{arguments}") as process:
        started = read_start(process)
        assert (started["token"], started["clusters"][0]["id"]) == ("dop hunter2", ID)
        assert "hunter2" not in Path(f"/proc/{process.pid}/cmdline").read_text()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--cluster", "=x"], 2, "names no engine"),
        (["--rate-limit", "fast"], 2, "REQUESTS/SECONDS"),
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
        (["--port", "-1"], 2, "port must be from 0 to 65535, not -1"),
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
