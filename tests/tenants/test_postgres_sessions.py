"""Sessions of the administrator on a PostgreSQL with TLS."""

from __future__ import annotations

import asyncio
import gc
import os
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
from aiodbclient.tenants._grants.postgres import PostgresGrants
from aiodbclient.tenants._grants.postgres_sessions import CAFile
from psycopg import AsyncConnection
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier

from aiodbclient import Action
from aiodbclient.engines import Engine
from aiodbclient.tenants._clusters import SiteReader
from aiodbclient.tenants._naming import names_of

from .conftest import Place, only


def test_the_authority_is_in_a_file_as_long_as_it_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    ca = CAFile("the authority")
    path = Path(ca.path())
    assert path.read_text() == "the authority"
    assert path.stat().st_mode & 0o077 == 0
    assert ca.path() == str(path)

    path.unlink()  # as what cleans /tmp does
    again = Path(ca.path())
    assert again.read_text() == "the authority"

    del ca
    gc.collect()
    assert os.listdir(tmp_path) == []


async def test_a_call_that_is_cancelled_over_tls_leaves_no_backend(place: Place) -> None:
    await place.tenants().ensure("alpha")
    site = await SiteReader(place.cluster).read(place.cluster)
    assert isinstance(site.sql, PostgresGrants)
    assert site.ca is not None
    names = names_of("alpha", Engine.PG, place.prefix)
    admin = make_conninfo(
        host=site.connection.host,
        port=site.connection.port,
        dbname="defaultdb",
        user=site.connection.user,
        password=site.connection.password,
    )
    waiting = "SELECT FROM pg_stat_activity WHERE query LIKE 'ALTER DATABASE %IS_TEMPLATE false' AND state = 'active'"
    async with (
        await AsyncConnection.connect(admin) as hostile,
        await AsyncConnection.connect(admin, autocommit=True) as watching,
    ):
        await hostile.execute(SQL("SET ROLE {}").format(Identifier(names.owner)))
        await hostile.execute(SQL("ALTER DATABASE {} IS_TEMPLATE true").format(Identifier(names.whole)))
        await hostile.commit()
        await hostile.execute(SQL("ALTER DATABASE {} CONNECTION LIMIT 7").format(Identifier(names.whole)))

        call = asyncio.create_task(site.sql.give(names, names.logins[0]))
        async with asyncio.timeout(20):
            while not await (await watching.execute(waiting)).fetchall():
                await asyncio.sleep(0.01)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
        assert await (await watching.execute(waiting)).fetchall() == []
        await hostile.rollback()
        await hostile.execute(SQL("ALTER DATABASE {} IS_TEMPLATE false").format(Identifier(names.whole)))


async def test_a_retired_login_is_out_though_a_session_of_it_sets_passwords_all_the_time(place: Place) -> None:
    tenants = place.tenants()
    leaked = await tenants.ensure("alpha")
    current = (await only(tenants.rotate(["alpha"]))).credential
    assert current is not None
    stop = threading.Event()

    def fight() -> None:
        with suppress(psycopg.Error), psycopg.connect(leaked.uri, autocommit=True) as session:
            session.execute("SET ROLE NONE")
            while not stop.is_set():
                session.execute("ALTER ROLE CURRENT_USER PASSWORD 'mine'")

    thread = threading.Thread(target=fight)
    thread.start()
    try:
        outcome = await only(tenants.retire(["alpha"]))
    finally:
        stop.set()
        await asyncio.to_thread(thread.join)

    if outcome.error is not None:  # since PostgreSQL 16 only a superuser can end such a session
        assert "was not ended" in str(outcome.error)
    for password in (leaked.password, "mine"):
        with pytest.raises(psycopg.OperationalError):
            await AsyncConnection.connect(leaked.uri, password=password)
    await (await AsyncConnection.connect(current.uri)).close()
    assert (await only(tenants.retire(["alpha"]))).action in (Action.RETIRED, Action.KEPT)
