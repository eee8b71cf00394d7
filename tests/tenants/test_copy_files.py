"""A dump appears whole or not at all, with its manifest, and only as what the manifest says is it read."""

from __future__ import annotations

import json
from asyncio.subprocess import Process, create_subprocess_exec
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import pytest

from aiodbclient.errors import ConfigurationError, InvalidArgumentError
from aiodbclient.tenants._copy import programs
from aiodbclient.tenants._copy.files import Manifest, check_free, path_in, read, whole

MANIFEST = Manifest(
    tenant="alpha",
    database="alpha",
    engine="pg",
    server="18.6",
    program="pg_dump 18.6",
    date="2026-11-28",
    database_bytes=100,
)


async def written(folder: Path, content: bytes = b"content") -> Path:
    path = path_in(folder, "alpha", ".dump")
    async with whole(path, MANIFEST) as file:
        file.write(content)
    return path


async def test_a_file_has_its_manifest_and_only_its_owner_may_read_them(tmp_path: Path) -> None:
    path = await written(tmp_path)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["alpha.dump", "alpha.json"]
    assert {each.stat().st_mode & 0o777 for each in tmp_path.iterdir()} == {0o600}
    assert json.loads((tmp_path / "alpha.json").read_text()) == {
        "format": 1,
        "tenant": "alpha",
        "database": "alpha",
        "engine": "pg",
        "server": "18.6",
        "program": "pg_dump 18.6",
        "date": "2026-11-28",
        "database_bytes": 100,
        "bytes": 7,
        "sha256": "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73",
    }
    manifest, file = read(path)
    with file:
        assert (manifest.bytes, file.read()) == (7, b"content")


async def test_a_failed_dump_leaves_the_earlier_one(tmp_path: Path) -> None:
    path = await written(tmp_path)
    with suppress(RuntimeError):
        async with whole(path, MANIFEST) as file:
            file.write(b"half")
            raise RuntimeError
    assert sorted(each.name for each in tmp_path.iterdir()) == ["alpha.dump", "alpha.json"]
    read(path)[1].close()
    await written(tmp_path, b"another")
    with read(path)[1] as file:
        assert file.read() == b"another"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda path: path.write_bytes(b"CONTENT"), "its SHA-256 differs"),
        (lambda path: path.with_suffix(".json").unlink(), "is no dump: there is no"),
        (lambda path: path.with_suffix(".json").write_text("[]"), "is not the manifest of a dump"),
        (lambda path: path.with_suffix(".json").write_text('{"format": 1}'), "is not the manifest of a dump"),
        (lambda path: path.unlink(), "is unreadable"),
    ],
    ids=["tampered", "alone", "another", "incomplete", "gone"],
)
async def test_what_is_not_as_its_manifest_says_is_refused(tmp_path: Path, change: object, reason: str) -> None:
    path = await written(tmp_path)
    assert callable(change)
    change(path)
    with pytest.raises(InvalidArgumentError, match=reason):
        read(path)


async def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    path = await written(tmp_path)
    manifest = path.with_suffix(".json")
    manifest.write_text(manifest.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(InvalidArgumentError, match="use a newer aiodbclient"):
        read(path)


def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path) -> None:
    for name in ("../alpha", "a/b", ".hidden", "a\nb"):
        with pytest.raises(InvalidArgumentError, match="is not safe as the name of a file"):
            path_in(tmp_path, name, ".dump")


def test_a_folder_without_room_is_refused(tmp_path: Path) -> None:
    check_free(tmp_path, 1)
    with pytest.raises(ConfigurationError, match="has too little free room"):
        check_free(tmp_path, 2**60)


async def test_what_a_program_copied_before_anybody_looked_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    async def ended(*command: Any, **options: Any) -> Process:
        process = await create_subprocess_exec(*command, **options)
        await process.wait()
        return process

    monkeypatch.setattr(programs, "create_subprocess_exec", ended)
    copied = list[int]()
    with TemporaryFile() as file:
        await programs.run(["echo", "1234567"], {}, stdout=file, copied=copied.append)
    assert sum(copied) == 8
