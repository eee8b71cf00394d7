"""The store in a file: the contract of stores, and its own features."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet

from aiodbclient import DatabaseClient
from aiodbclient.errors import ConfigurationError, InvalidArgumentError
from aiodbclient.sandbox import Sandbox
from aiodbclient.tenants import Record, SQLiteStore, Store, Tenants
from aiodbclient.tenants._stores import sealing, sqlite
from aiodbclient.tenants._stores.copying import copy_records
from aiodbclient.tenants._stores.sealing import Key
from aiodbclient.tenants.errors import ClaimLostError, StoreError

from .processes import BAD_LEASES, claimer, keep, line, password
from .store_contract import LONG, StoreContract, a_credential, put_on_record


class TestSQLiteStore(StoreContract):
    key: Key = None

    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path) -> None:
        self.path = tmp_path / "tenants.db"

    @asynccontextmanager
    async def place(self) -> AsyncIterator[Callable[[], Store]]:
        self.path.unlink(missing_ok=True)
        yield lambda: SQLiteStore(self.path, self.key)


class TestEncryptedSQLiteStore(TestSQLiteStore):
    key = (Fernet.generate_key(), Fernet.generate_key().decode())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tenants.db"


async def keep_many(store: Store) -> None:
    for number in range(1000):
        await keep(store, f"tenant-{number}")


async def test_only_its_owner_can_read_its_files(path: Path) -> None:
    async with SQLiteStore(path) as store:
        await store.claim("alpha", LONG)
        modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()}
    assert set(modes.values()) == {0o600}
    assert len(modes) == 2  # the store, and SQLite's journal

    path.chmod(0o644)
    async with SQLiteStore(path) as store:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("kind", ["folder", "pipe", "list of names"])
async def test_a_file_that_is_not_a_store_keeps_its_mode(path: Path, kind: str) -> None:
    """Otherwise root would lock out other users from a path that was given by mistake: a folder, or /dev/null."""
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.write_text("name\nalpha\nbeta\n" * 100)
    path.chmod(0o755)

    with pytest.raises(StoreError, match=r"not a file|or is not a store"):
        await SQLiteStore(path).__aenter__()

    assert stat.S_IMODE(path.stat().st_mode) == 0o755


@pytest.mark.parametrize("table", ["mine (x)", "credentials (name, password)"])
async def test_the_database_of_another_program_is_left_as_it_is(path: Path, table: str) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA journal_mode = WAL")
        other.execute(f"CREATE TABLE {table}")
    path.chmod(0o664)
    before = path.read_bytes()

    with pytest.raises(StoreError, match="is not a store: it is the SQLite database of another program"):
        await SQLiteStore(path).__aenter__()

    assert path.read_bytes() == before
    assert stat.S_IMODE(path.stat().st_mode) == 0o664


async def test_an_empty_file_is_a_store_that_was_lost(path: Path) -> None:
    """Otherwise all tenants would be off record, and the next sign-ups would begin a second store."""
    async with SQLiteStore(path) as store:
        await keep(store, "alpha")
    os.truncate(path, 0)
    for _ in range(2):
        with pytest.raises(StoreError, match=r"is empty: it lost its records, .*from a backup or, if it nev"):
            await SQLiteStore(path).__aenter__()
    assert path.read_bytes() == b""
    path.unlink()
    async with SQLiteStore(path) as store:
        await keep(store, "beta")


async def test_all_who_make_a_store_at_once_have_the_same(path: Path) -> None:
    for _ in range(10):
        stores = [SQLiteStore(path) for _ in range(8)]
        await asyncio.gather(*(store.__aenter__() for store in stores))
        await asyncio.gather(*(keep(store, f"tenant-{n}") for n, store in enumerate(stores)))
        assert len([record async for record in stores[0].records()]) == len(stores)
        for store in stores:
            await store.__aexit__(None, None, None)
        assert {each.name for each in path.parent.iterdir()} <= {path.name, f"{path.name}-journal"}
        path.unlink()


as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to somebody else")
STRANGER = 65534


@as_root
@pytest.mark.parametrize("mode", [0o600, 0o666])
async def test_a_file_that_somebody_else_made_is_refused_and_left_as_it_is(path: Path, mode: int) -> None:
    """Otherwise it would be filled with credentials and stay theirs."""
    path.touch(mode)
    os.chown(path, STRANGER, STRANGER)
    with pytest.raises(StoreError, match=rf"tenants.db belongs to user {STRANGER}, who could read the credentials"):
        await SQLiteStore(path).__aenter__()
    assert (path.read_bytes(), path.stat().st_uid) == (b"", STRANGER)


async def test_links_of_ones_own_are_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    async with SQLiteStore(tmp_path / "link" / "tenants.db") as store:
        await keep(store, "alpha")
    async with SQLiteStore(tmp_path / "real" / "tenants.db") as store:
        assert await password(store, "alpha") == "hunter2"


async def test_the_time_is_the_machines(path: Path) -> None:
    before = datetime.now(UTC)
    async with SQLiteStore(path) as store:
        now = await store.now()
    assert before <= now <= datetime.now(UTC)
    assert now.tzinfo is UTC


async def test_a_folder_that_goes_away_hides_no_exception_of_the_program(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()

    async def program() -> None:
        async with SQLiteStore(folder / "tenants.db") as store:
            await store.claim("alpha", LONG)
            shutil.rmtree(folder)
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        await program()


@pytest.mark.parametrize("what", ["removed", "replaced"])
async def test_a_file_that_goes_away_is_reported(path: Path, what: str) -> None:
    async with SQLiteStore(path) as store:
        await keep(store, "alpha")
        path.unlink()
        if what == "replaced":
            path.touch()
        with pytest.raises(StoreError, match=r"cannot use .*: its file was moved, replaced or removed while") as caught:
            await keep(store, "beta")
    assert "readonly" not in str(caught.value)


async def test_a_process_that_was_stopped_past_its_lease_keeps_nothing(path: Path) -> None:
    with claimer(path, "alpha", 0.5) as process:
        assert line(process) == "claimed"
        process.send_signal(signal.SIGSTOP)
        async with SQLiteStore(path) as store:
            while (claim := await store.claim("alpha", LONG)) is None:
                await asyncio.sleep(0.05)
            process.send_signal(signal.SIGCONT)
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
            assert await asyncio.to_thread(line, process) == "ClaimLostError"
            await put_on_record(store, claim, a_credential("alpha"))
            assert await password(store, "alpha") == "hunter2"


async def test_three_processes_share_a_file(path: Path) -> None:
    program = (
        "import asyncio, sys\n"
        "from aiodbclient.tenants import SQLiteStore\n"
        "from tests.tenants.store_contract import a_credential, put_on_record\n"
        "async def one(store, name):\n"
        "    claim = await store.claim(name, 60)\n"
        "    if claim is None or claim.record.current:\n"
        "        return claim and await store.release(claim)\n"
        "    await store.begin(claim, name)\n"
        "    await put_on_record(store, claim, a_credential(name, sys.argv[2]))\n"
        "    print(name)\n"
        "async def main():\n"
        "    async with SQLiteStore(sys.argv[1]) as store:\n"
        "        await asyncio.gather(*(one(store, f't{number}') for number in range(100)))\n"
        "asyncio.run(main())\n"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", program, path, f"p{number}"], stdout=subprocess.PIPE, text=True)
        for number in range(3)
    ]
    claimed = [(await asyncio.to_thread(process.communicate))[0].split() for process in processes]

    assert sorted(name for names in claimed for name in names) == sorted(f"t{number}" for number in range(100))
    async with SQLiteStore(path) as store:
        for number, names in enumerate(claimed):
            for name in names:
                assert await password(store, name) == f"p{number}"


async def test_a_locked_file_is_an_error_that_passes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "_LOCK_TIMEOUT", 0.1)
    async with SQLiteStore(path) as store:
        await keep(store, "alpha")
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            for call in (store.claim("beta", LONG), store.get("alpha")):
                with pytest.raises(StoreError, match=r"database is locked .another process kept it locked"):
                    await call
            other.execute("ROLLBACK")
        assert await store.get("beta") is None
        await keep(store, "beta")


async def test_a_full_disk_is_an_error_that_passes(path: Path) -> None:
    async with SQLiteStore(path) as store:
        await keep(store, "alpha")
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size, hard))
        try:
            claims = await asyncio.gather(*(store.claim(f"t{n}" * 40, LONG) for n in range(40)), return_exceptions=True)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert {type(claim) for claim in claims} == {StoreError}
        assert len({id(claim) for claim in claims}) == 40
        assert [record.name async for record in store.records()] == ["alpha"]
        await keep(store, "beta")


@pytest.mark.skipif(not Path("/dev/full").exists() or os.geteuid() != 0, reason="needs to mount a small disk")
async def test_a_disk_without_room_is_an_error_that_passes(path: Path) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(path.parent)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("cannot mount a small disk")
    try:
        async with SQLiteStore(path) as store:
            await keep(store, "alpha")
            with pytest.raises(StoreError, match=r"database or disk is full .make room"):
                await keep_many(store)
            assert await password(store, "alpha") == "hunter2"
            claim = await store.claim("tenant-0", LONG)
            assert claim is not None
            await store.commit(claim, None)
            await keep(store, "beta")
    finally:
        subprocess.run(["umount", "-l", path.parent], check=True)


async def test_a_file_that_cannot_be_written_can_be_read() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tenants.db"
        async with SQLiteStore(path) as store:
            await keep(store, "alpha")
        root = os.geteuid() == 0
        if root:  # file modes do not stop root
            for each in (path.parent, *path.parent.iterdir()):
                os.chown(each, 65534, 65534)
        path.chmod(0o400)
        if root:
            os.seteuid(65534)
        try:
            async with SQLiteStore(path) as store:
                assert await password(store, "alpha") == "hunter2"
                with pytest.raises(
                    StoreError, match=r"attempt to write a readonly database .the file cannot be written"
                ):
                    await store.claim("alpha", LONG)
                path.chmod(0o600)
                with pytest.raises(StoreError):
                    await store.claim("alpha", LONG)  # for SQLite, the mode at open decides
            async with SQLiteStore(path) as store:
                await keep(store, "alpha")
        finally:
            if root:
                os.seteuid(0)


async def test_a_file_that_is_not_a_store_is_reported(path: Path) -> None:
    path.write_bytes(b"no database " * 1000)
    with pytest.raises(StoreError, match=r"file is not a database .the file is damaged, or is not a store"):
        async with SQLiteStore(path):
            pass
    with pytest.raises(StoreError, match=r"cannot use .*: unable to open|No such file"):
        async with SQLiteStore(path.parent / "nowhere" / "tenants.db"):
            pass


@pytest.mark.parametrize("key", [None, Fernet.generate_key()], ids=["plain", "encrypted"])
async def test_a_flipped_byte_is_never_another_credential(path: Path, key: Key) -> None:
    """Damage every byte of the file in turn, in steps. Unused bytes do not matter, and a name may be lost."""
    async with SQLiteStore(path, key) as store:
        for name in ("alpha", "beta"):
            await keep(store, name, f"hunter-{name}")
    good = path.read_bytes()
    refused: list[str] = []
    for position in range(0, len(good), 131):
        damaged = bytearray(good)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        try:
            async with SQLiteStore(path, key) as store:
                expected = {name: a_credential(name, f"hunter-{name}") for name in ("alpha", "beta")}
                for name in expected:
                    claim = await store.claim(name, LONG)
                    assert claim is not None
                    assert claim.record.current in (None, expected[name])
                    await store.release(claim)
                async for record in store.records():
                    assert record.current in (None, expected[record.name])
        except StoreError as error:
            refused.append("".join(traceback.format_exception(error)))
    assert "hunter" not in "".join(refused)
    assert len(refused) > good.count(b"v1.") * 500 / 131  # each record is longer than that


async def test_a_damaged_row_is_in_nobody_elses_way(path: Path) -> None:
    async with SQLiteStore(path) as store:
        await keep(store, "alpha")
        await keep(store, "beta")
        with closing(sqlite3.connect(path)) as other:
            other.execute("UPDATE credentials SET record = replace(record, 'hunter2', 'hunter3') WHERE name = 'alpha'")
            other.commit()
        for call in (store.get("alpha"), store.claim("alpha", LONG)):
            with pytest.raises(StoreError, match="the record of 'alpha' is damaged"):
                await call
        assert await password(store, "beta") == "hunter2"
    async with SQLiteStore(path) as store:
        await keep(store, "beta", "hunter4")


@pytest.mark.parametrize("key", [None, Fernet.generate_key()], ids=["plain", "encrypted"])
async def test_a_row_copied_to_another_name_is_refused(path: Path, key: Key) -> None:
    async with SQLiteStore(path, key) as store:
        await keep(store, "alpha")
        await keep(store, "beta")
        with closing(sqlite3.connect(path)) as other:
            alphas = other.execute("SELECT record FROM credentials WHERE name = 'alpha'").fetchone()
            other.execute("UPDATE credentials SET record = ? WHERE name = 'beta'", alphas)
            other.commit()
        with pytest.raises(StoreError, match=r"the record of 'beta' (is damaged, or )?belongs to another name"):
            await store.get("beta")


@pytest.mark.parametrize("key", [None, Fernet.generate_key()], ids=["plain", "encrypted"])
async def test_no_traceback_shows_a_credential_among_its_local_variables(path: Path, key: bytes | None) -> None:
    """Of a record of a newer version, of a damaged one, and of one that could not be written."""

    def shows(error: BaseException) -> bool:
        inside = traceback.TracebackException.from_exception(error, capture_locals=True).stack[1:]
        return "hunter2" in str([each.locals for each in inside])

    async with SQLiteStore(path, key) as store:
        for name in ("alpha", "beta", "gamma"):
            await keep(store, name)
        body = json.dumps({"name": "beta", "newer": "hunter2"})
        body = body if key is None else Fernet(key).encrypt(body.encode()).decode()
        newer = f"v1.plain.{sealing._checksum('beta', body)}.{body}" if key is None else f"v1.fernet.{body}"
        with closing(sqlite3.connect(path)) as other:
            other.execute("UPDATE credentials SET record = ? WHERE name = 'beta'", [newer])
            other.execute("UPDATE credentials SET record = replace(record, 'v1.', 'v2.') WHERE name = 'gamma'")
            other.commit()
        for name in ("beta", "gamma"):
            for call in (store.get(name), store.claim(name, LONG)):
                with pytest.raises(StoreError) as unreadable:
                    await call
                assert not shows(unreadable.value)
    async with SQLiteStore(path, key) as store:
        claim = await store.claim("alpha", LONG)
        assert claim is not None
        path.unlink()
        with pytest.raises(StoreError) as unwritten:
            await put_on_record(store, claim, a_credential("alpha"))
        assert not shows(unwritten.value)


async def test_credentials_are_encrypted_with_the_first_key_and_read_with_each(path: Path) -> None:
    old, new = Fernet.generate_key(), Fernet.generate_key()
    async with SQLiteStore(path, old) as store:
        await keep(store, "alpha")
        assert b"hunter2" not in path.read_bytes()
    async with SQLiteStore(path, [new, old]) as store:
        async for record in store.records():
            claim = await store.claim(record.name, LONG)
            assert claim is not None
            await put_on_record(store, claim, record.current, record.previous)
    async with SQLiteStore(path, new) as store:
        assert await password(store, "alpha") == "hunter2"
    for key, why in ((old, "encrypted with another key"), (None, "is encrypted: open the store with its key=")):
        with pytest.raises(StoreError, match=why):
            async with SQLiteStore(path, key):
                pass


async def test_a_key_refuses_what_is_not_encrypted(path: Path) -> None:
    async with SQLiteStore(path) as store:
        await keep(store, "alpha")
    with pytest.raises(StoreError, match="not encrypted"):
        async with SQLiteStore(path, Fernet.generate_key()):
            pass


@pytest.mark.parametrize("key", ["hunter2", b"hunter2", [Fernet.generate_key(), "hunter2"], [], 5])
def test_an_invalid_key_is_refused_and_not_shown(path: Path, key: Key) -> None:
    with pytest.raises(InvalidArgumentError, match="key= takes") as caught:
        SQLiteStore(path, key)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("path", [None, 5, b"tenants.db", "", "a\0b", ":memory:"])
def test_invalid_paths_are_refused(path: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="the path of a file"):
        SQLiteStore(path)


@pytest.mark.parametrize("lease", BAD_LEASES)
async def test_a_lease_that_is_no_time_is_refused(path: Path, lease: Any) -> None:
    async with SQLiteStore(path) as store:
        claim = await store.claim("alpha", LONG)
        assert claim is not None
        for call in (store.claim("beta", lease), store.renew(claim, lease)):
            with pytest.raises(InvalidArgumentError, match="lease must be a positive number of seconds"):
                await call
        assert await store.get("beta") is None


async def test_names_that_no_store_can_hold_are_refused(path: Path) -> None:
    async with SQLiteStore(path) as store:
        for name in ("", "a\0b", "\ud800"):
            with pytest.raises(InvalidArgumentError, match="must be unicode without NUL"):
                await store.claim(name, LONG)


async def test_it_is_opened_once(path: Path) -> None:
    async with SQLiteStore(path) as store:
        with pytest.raises(ConfigurationError, match="open already"):
            await store.__aenter__()
        await keep(store, "alpha")
    async with store:
        assert await password(store, "alpha") == "hunter2"


async def test_windows_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(ConfigurationError, match="PostgresStore works everywhere"):
        async with SQLiteStore(path):
            pass
    assert not path.exists()


async def damage(path: Path, name: str) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("UPDATE credentials SET record = replace(record, 'hunter2', 'hunter3') WHERE name = ?", [name])
        other.commit()


async def test_a_damaged_record_is_listed_after_the_others_and_can_be_discarded(path: Path) -> None:
    async with SQLiteStore(path) as store, SQLiteStore(path.parent / "copy.db") as copy:
        for name in ("alpha", "beta", "gamma", "delta"):
            await keep(store, name)
        await damage(path, "beta")
        await damage(path, "delta")

        seen = [entry async for entry in store.entries()]
        assert [each.name for each in seen if isinstance(each, Record)] == ["alpha", "gamma"]
        assert [each.damaged for each in seen if isinstance(each, StoreError)] == [("beta",), ("delta",)]
        listed = store.records()
        assert [(await anext(listed)).name, (await anext(listed)).name] == ["alpha", "gamma"]
        with pytest.raises(
            StoreError, match=r"record of 'beta' is damaged.* nor can the records of 'delta' be read"
        ) as e:
            await anext(listed)
        assert e.value.damaged == ("beta", "delta")

        with pytest.raises(StoreError, match="record of 'beta' is damaged"):
            await copy_records(store, copy)
        assert [record.name async for record in copy.records()] == ["alpha", "gamma"]

    async with SQLiteStore(path) as store:
        for name in ("beta", "delta"):
            await store.discard(name)
        with pytest.raises(StoreError, match="'nobody' is not on record"):
            await store.discard("nobody")
        assert [record.name async for record in store.records()] == ["alpha", "gamma"]
        assert await store.claim("epsilon", LONG) is not None
        with pytest.raises(ClaimLostError, match="a process works on 'epsilon'"):
            await store.discard("epsilon")


async def test_a_name_that_is_no_text_is_an_error_after_all_others(path: Path) -> None:
    """One flipped bit makes it the last one, and no statement can name it to read on."""
    async with SQLiteStore(path) as store:
        await keep(store, "alpha")
        await keep(store, "beta")
        with closing(sqlite3.connect(path)) as other:
            other.execute("UPDATE credentials SET name = CAST(x'e2657461' AS TEXT) WHERE name = 'beta'")
            other.commit()
        listed = store.records()
        assert (await anext(listed)).name == "alpha"
        with pytest.raises(StoreError, match="is damaged"):
            await anext(listed)


async def test_a_run_over_all_names_goes_on_after_a_damaged_record(path: Path) -> None:
    async with Sandbox(windows=[]) as sandbox, SQLiteStore(path) as store:
        cluster_id = await sandbox.add_cluster("pg", backend="postgres")
        async with DatabaseClient(sandbox.token, base_url=sandbox.url) as client:
            tenants = Tenants(client.cluster(cluster_id), store)
            for name in ("alpha", "beta", "gamma"):
                await tenants.ensure(name)
            with closing(sqlite3.connect(path)) as other:
                other.execute("UPDATE credentials SET record = replace(record, 'alpha', 'alphb') WHERE name = 'alpha'")
                other.commit()

            outcomes = {outcome.name: outcome async for outcome in tenants.check()}

    assert sorted(outcomes) == ["alpha", "beta", "gamma"]
    assert isinstance(outcomes["alpha"].error, StoreError)
    assert outcomes["beta"].error is outcomes["gamma"].error is None
