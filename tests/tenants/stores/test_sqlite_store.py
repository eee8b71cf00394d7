"""The store in a file: the contract of stores, and its own features."""

from __future__ import annotations

import asyncio
import os
import shutil
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

from aiodbclient.errors import ConfigurationError, InvalidArgumentError
from aiodbclient.tenants import SQLiteStore, Store
from aiodbclient.tenants._stores import sqlite
from aiodbclient.tenants._stores.codec import Key
from aiodbclient.tenants.errors import StoreError

from ..own_stores import password
from ..store_contract import LONG, StoreContract, a_record, claimed, keep


class TestSQLiteStore(StoreContract):
    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path) -> None:
        self.path = tmp_path / "tenants.db"

    @asynccontextmanager
    async def place(self) -> AsyncIterator[Callable[[], Store]]:
        yield lambda: SQLiteStore(self.path)
        left = {each.name for each in self.path.parent.iterdir()}
        assert left <= {self.path.name, f"{self.path.name}-journal"}, "a file of a store that was being made"
        for name in left:
            (self.path.parent / name).unlink()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tenants.db"


async def test_files_are_the_owners_alone(path: Path) -> None:
    async with SQLiteStore(path) as store:
        await store.claim("alpha", LONG)
        modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()}
    assert set(modes.values()) == {0o600}
    assert len(modes) == 2  # the store, and SQLite's journal

    path.chmod(0o644)
    async with SQLiteStore(path) as store:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_change_is_on_the_disk_when_it_returns(path: Path) -> None:
    """As the settings of its connection say: SQLite waits for the disk, and overwrites what was replaced."""
    async with SQLiteStore(path) as store:
        await keep(store, "alpha")
    with closing(sqlite._open(path)) as database:
        [found] = zip(*(database.execute(f"PRAGMA {each}").fetchone() for each in DURABLE), strict=True)
    assert dict(zip(DURABLE, found, strict=True)) == DURABLE


DURABLE = {"synchronous": 2, "journal_mode": "truncate", "secure_delete": 1}


def make_database(path: Path, table: str) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA journal_mode = WAL")
        other.execute(f"CREATE TABLE {table}")


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (Path.mkdir, "it is a folder or a device, not a file"),
        (os.mkfifo, "it is a folder or a device, not a file"),
        (
            lambda path: path.write_text("alpha\n" * 1000),
            "file is not a database .the file is damaged, or is not a store",
        ),
        (lambda path: make_database(path, "mine (x)"), "is not a store: it is the SQLite database of another program"),
        (
            lambda path: make_database(path, "credentials (name)"),
            "is not a store: it is the SQLite database of another",
        ),
    ],
    ids=["folder", "pipe", "text", "other database", "other table"],
)
async def test_wrong_file_is_refused_and_unchanged(path: Path, make: Callable[[Path], object], why: str) -> None:
    """Otherwise root would lock out other users from a path that was given by mistake: a folder, or /dev/null."""
    make(path)
    path.chmod(0o755)
    before = path.read_bytes() if path.is_file() else None

    with pytest.raises(StoreError, match=why):
        await SQLiteStore(path).__aenter__()

    assert stat.S_IMODE(path.stat().st_mode) == 0o755
    assert before is None or path.read_bytes() == before


async def test_missing_folder_is_reported(path: Path) -> None:
    with pytest.raises(StoreError, match=r"cannot use .*: unable to open|No such file"):
        await SQLiteStore(path.parent / "nowhere" / "tenants.db").__aenter__()


async def test_empty_file_is_refused(path: Path) -> None:
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


@pytest.mark.parametrize("bytes_", [1, 8_000, 16_000])
async def test_cut_off_file_is_refused(path: Path, bytes_: int) -> None:
    """SQLite reads zeros past the end, so a name in the last page would be free."""
    async with SQLiteStore(path) as store:
        for number in range(200):
            await keep(store, f"alpha{number}")
    async with SQLiteStore(path) as store:  # the control
        assert (await store.get("alpha0")) is not None
    os.truncate(path, path.stat().st_size - bytes_)
    before = path.read_bytes()
    with pytest.raises(StoreError, match="is cut off: restore it from a backup"):
        await SQLiteStore(path).__aenter__()
    assert path.read_bytes() == before


STRANGER = 65534


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to somebody else")
@pytest.mark.parametrize("name", ["tenants.db", "tenants.db-journal"])
async def test_file_of_another_user_is_refused(path: Path, name: str) -> None:
    """Its owner could read the credentials. SQLite undoes what the journal describes."""
    async with SQLiteStore(path) as store:
        await keep(store, "alpha")
    async with SQLiteStore(path) as store:  # the control
        assert await password(store, "alpha") == "hunter2"
    file = path.with_name(name)
    file.touch()
    file.chmod(0o666)
    before = file.read_bytes()
    os.chown(file, STRANGER, STRANGER)
    with pytest.raises(StoreError, match=rf"{name} belongs to user {STRANGER}, who could read the credentials"):
        await SQLiteStore(path).__aenter__()
    assert (file.read_bytes(), file.stat().st_uid) == (before, STRANGER)


async def test_now_is_the_machines_time(path: Path) -> None:
    before = datetime.now(UTC)
    async with SQLiteStore(path) as store:
        now = await store.now()
    assert before <= now <= datetime.now(UTC)
    assert now.tzinfo is UTC


@pytest.mark.parametrize("what", ["file", "folder", "replaced"])
async def test_removed_file_is_reported(path: Path, what: str) -> None:
    async with SQLiteStore(path) as store:
        await keep(store, "alpha")
        path.unlink()
        if what == "replaced":
            path.touch()
        elif what == "folder":
            shutil.rmtree(path.parent)
        with pytest.raises(StoreError, match=r"cannot use .*: its file was moved, replaced or removed while") as caught:
            await keep(store, "beta")
    assert "readonly" not in str(caught.value)


async def test_locked_file_is_an_error_that_passes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


async def test_lock_of_another_process_is_waited_for(path: Path) -> None:
    """It is longer than one try to lock the file."""
    async with SQLiteStore(path) as store:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            keeping = asyncio.create_task(keep(store, "alpha"))
            await asyncio.wait([keeping], timeout=3 * sqlite._TRY)
            other.execute("ROLLBACK")
        await keeping
        assert await password(store, "alpha") == "hunter2"


@pytest.mark.skipif(not Path("/dev/full").exists() or os.geteuid() != 0, reason="needs to mount a small disk")
async def test_full_disk_is_an_error_that_passes(path: Path) -> None:

    async def fill(store: Store) -> None:
        for number in range(1000):
            await keep(store, f"tenant-{number}")

    mount = ["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(path.parent)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("cannot mount a small disk")
    try:
        async with SQLiteStore(path) as store:
            await keep(store, "alpha")
            with pytest.raises(StoreError, match=r"database or disk is full .make room"):
                await fill(store)
            assert await password(store, "alpha") == "hunter2"
            await store.save(await claimed(store, "tenant-0"), None, release=True)
            await keep(store, "beta")
    finally:
        subprocess.run(["umount", "-l", path.parent], check=True)


async def test_read_only_file_is_read() -> None:
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


@pytest.mark.parametrize(
    "key", [None, pytest.param(Fernet.generate_key(), marks=pytest.mark.thorough)], ids=["plain", "encrypted"]
)
async def test_flipped_byte_changes_no_credential(path: Path, key: Key) -> None:
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
                expected = {name: a_record(name, f"hunter-{name}") for name in ("alpha", "beta")}
                for name in expected:
                    claim = await claimed(store, name)
                    assert claim.record in (None, expected[name])
                    await store.release(claim)
                async for record in store.records():
                    assert record == expected[record.name]
        except StoreError as error:
            refused.append("".join(traceback.format_exception(error)))
    assert "hunter" not in "".join(refused)
    assert len(refused) > good.count(b"v1.") * 500 / 131  # each record is longer than that


@pytest.mark.parametrize("path", [None, 5, b"tenants.db", "", "a\0b", ":memory:"])
def test_invalid_paths_are_refused(path: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="the path of a file"):
        SQLiteStore(path)


async def test_windows_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(ConfigurationError, match="PostgresStore works everywhere"):
        async with SQLiteStore(path):
            pass
    assert not path.exists()


async def test_name_that_is_no_text_is_listed_last(path: Path) -> None:
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
