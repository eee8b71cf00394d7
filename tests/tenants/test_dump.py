"""A tenant is dumped to a file, and a file is loaded into a tenant."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from aiodbclient import Action
from aiodbclient.errors import ConflictError, InvalidArgumentError
from aiodbclient.tenants import Tenants
from aiodbclient.tenants._copy.programs import installed
from aiodbclient.tenants.errors import GrantError

from .conftest import only
from .moves import Two, left_on, sql


async def test_a_tenant_is_dumped_and_loaded(two: Two, tmp_path: Path) -> None:
    tenants = two.tenants()
    alpha = await tenants.ensure("alpha")
    await tenants.role("reader").ensure("alpha")
    await sql(alpha, "CREATE TABLE t (n int)", "INSERT INTO t SELECT generate_series(1, 50)")
    dumped = await only(tenants.dump(["alpha"], tmp_path))
    assert dumped.error is None
    assert (dumped.action, dumped.file) == (Action.DONE, tmp_path / "alpha.dump")
    assert dumped.bytes == (tmp_path / "alpha.dump").stat().st_size
    assert await left_on(tenants, two.old, "alpha") == (True, [alpha.username, *await logins_of(tenants, "alpha")])
    assert (await only(tenants.check(["alpha"]))).problems == ()

    beta = await tenants.ensure("beta")
    reader = await tenants.role("reader").ensure("beta")
    assert await tenants.load("beta", tmp_path / "alpha.dump") == beta
    assert await sql(beta, "SELECT count(*) FROM t") == [(50,)]
    assert await sql(reader, "SELECT count(*) FROM t") == [(50,)]
    with pytest.raises(ConflictError, match="is not empty"):
        await tenants.load("beta", tmp_path / "alpha.dump")
    (tmp_path / "alpha.dump").write_bytes(b"PGDMP" + b"x" * 100)
    await tenants.ensure("gamma")
    with pytest.raises(InvalidArgumentError, match="SHA-256 differs"):
        await tenants.load("gamma", tmp_path / "alpha.dump")
    with pytest.raises(InvalidArgumentError, match="must be a folder"):
        tenants.dump(["alpha"], tmp_path / "nothing")


async def logins_of(tenants: Tenants, name: str) -> list[str]:
    reader = await tenants.role("reader").get(name)
    return [] if reader is None else [reader.username]


async def test_a_dump_that_is_cut_short_replaces_none(
    two: Two, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pg_dump exits with 0 if the disk has no room for the last bytes of its file."""
    programs = (await installed("pg_dump", "pg_restore"))[-1]
    folder = tmp_path / "embedded_postgres"
    folder.mkdir()
    cut = f'#!/bin/sh\ncase "$1" in --version) exec {programs.dump} "$1";; esac\n{programs.dump} "$@" | head -c 1000\n'
    (folder / "pg_dump").write_text(cut)
    (folder / "pg_dump").chmod(0o755)
    (folder / "pg_restore").symlink_to(programs.restore)
    tenants = two.tenants()
    await tenants.ensure("alpha")
    assert (await only(tenants.dump(["alpha"], tmp_path))).error is None
    before = (tmp_path / "alpha.dump").read_bytes()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    error = (await only(tenants.dump(["alpha"], tmp_path))).error
    assert isinstance(error, GrantError)
    assert "pg_restore failed" in str(error)
    assert (tmp_path / "alpha.dump").read_bytes() == before
