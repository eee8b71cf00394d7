"""Databases of MySQL are dumped and restored by programs, with the rights of the tenant alone."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryFile
from urllib.parse import quote, unquote, urlsplit

import pytest
from pymysql.cursors import Cursor

from aiodbclient.engines import Engine
from aiodbclient.errors import ConfigurationError
from aiodbclient.tenants import Credential
from aiodbclient.tenants._copy import mysql as copying
from aiodbclient.tenants._copy.mysql import MySQLCopier
from aiodbclient.tenants._naming import names_of
from aiodbclient.tenants._servers.mysql import MySQLServer
from aiodbclient.tenants.errors import GrantError

from ..mysql import SERVERS, administrator
from ..proc import command_lines
from .leaks import leaks
from .moves import connected, run

PASSWORD = "p\"a\\s#s;w'd"
BODY = """BEGIN
  -- CREATE DEFINER=`x`@`y` PROCEDURE
  /* ;;
CREATE DEFINER=`root`@`localhost` PROCEDURE in_a_comment() */
  SET @a = 'it''s \\' ;;
CREATE DEFINER=`root`@`localhost` PROCEDURE `in_a_string`
/*!50003 CREATE*/ /*!50017 DEFINER=`root`@`localhost`*/ /*!50003 TRIGGER';
  SET @b = 'DELIMITER ;
CREATE DEFINER=`root`@`localhost` PROCEDURE `also`';
END"""
ROWS = [
    "\nCREATE DEFINER=`root`@`localhost` PROCEDURE `p`",
    "/*!50013 DEFINER=`a`@`b` SQL SECURITY DEFINER */",
    "é\0\r\n\\",
]


@pytest.fixture(params=SERVERS)
def dsn(request: pytest.FixtureRequest, mysql: Callable[[str], str]) -> str:
    return mysql(request.param)


@pytest.fixture
def cursor(dsn: str) -> Iterator[Cursor]:
    with administrator(dsn) as cursor:
        yield cursor


@pytest.fixture
async def copier(cursor: Cursor) -> MySQLCopier:
    return await MySQLCopier.with_tools(names_of("copy", Engine.MYSQL), "", "", has_tls=False)


def made(dsn: str, user: str) -> Credential:
    """An empty schema, and a login that may do everything there."""
    with administrator(dsn) as cursor:
        cursor.execute(f"DROP USER IF EXISTS {user}@'%'")
        cursor.execute(f"DROP DATABASE IF EXISTS {user}")
        cursor.execute(f"CREATE DATABASE {user}")
        cursor.execute(f"CREATE USER {user}@'%%' IDENTIFIED BY %s", [PASSWORD])
        cursor.execute(f"GRANT ALL ON {user}.* TO {user}@'%'")
    parts = urlsplit(dsn)
    return Credential(
        name=user,
        username=user,
        password=PASSWORD,
        database=user,
        host="127.0.0.1",
        port=parts.port or 0,
        engine=Engine.MYSQL,
        uri=f"mysql://{user}:{quote(PASSWORD, safe='')}@127.0.0.1:{parts.port}/{user}",
        ca=Path(unquote(parts.query.removeprefix("ssl-ca="))).read_text(),
    )


def filled(cursor: Cursor, schema: str) -> None:
    """Things that the administrator made: each has a DEFINER who is not the tenant."""
    cursor.execute(f"USE {schema}")
    cursor.execute("ALTER DATABASE CHARACTER SET utf8mb4 COLLATE utf8mb4_bin")
    cursor.execute("CREATE FUNCTION same(a VARCHAR(9)) RETURNS INT DETERMINISTIC RETURN a = 'ABC'")
    cursor.execute("CREATE TABLE t (id INT PRIMARY KEY, text TEXT, bytes BLOB) COMMENT 'a\nCREATE DEFINER=`x`@`y` '")
    cursor.executemany("INSERT INTO t VALUES (%s, %s, %s)", [(n, text, text.encode()) for n, text in enumerate(ROWS)])
    cursor.execute("CREATE VIEW v AS SELECT id, '/*!50013 DEFINER=`a`@`b` SQL' AS x FROM t")
    cursor.execute("CREATE FUNCTION f() RETURNS INT DETERMINISTIC RETURN 7")
    cursor.execute("CREATE VIEW a_view_on_a_view (`x y``z`) AS SELECT concat(x, f()) FROM v")
    cursor.execute("CREATE SQL SECURITY INVOKER VIEW z AS SELECT * FROM a_view_on_a_view")
    cursor.execute(f"CREATE PROCEDURE p() {BODY}")
    cursor.execute(f"CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW {BODY}")
    cursor.execute("CREATE TRIGGER a_later_one BEFORE INSERT ON t FOR EACH ROW SET @order = 2")
    cursor.execute("SET time_zone = '+05:00'")
    cursor.execute("CREATE EVENT e ON SCHEDULE EVERY 1 YEAR DO SET @x = 'DEFINER=`a`@`b`'")
    cursor.execute("SET sql_mode = 'NO_BACKSLASH_ESCAPES,ANSI_QUOTES'")
    cursor.execute("CREATE PROCEDURE q() BEGIN SET @a = '\\'; SET @b = 'DEFINER=`x`@`y`'; END")
    cursor.execute("SET sql_mode = DEFAULT, time_zone = DEFAULT")


PROGRAMS = {  # a table of each kind, what is compared, and how its columns begin
    "routines": ("routine_name, routine_definition, sql_mode", "routine"),
    "triggers": ("trigger_name, action_statement, action_order", "trigger"),
    "events": ("event_name, event_definition, time_zone, starts", "event"),
    "tables": ("table_name, table_comment", "table"),
    "views": ("table_name, security_type", "table"),
}


def rows(cursor: Cursor, query: str) -> list[object]:
    cursor.execute(query)
    return [*cursor.fetchall()]


def look(cursor: Cursor, schema: str) -> list[object]:
    """What is in a schema, without definers."""
    found = list[object]()
    for table, (columns, kind) in PROGRAMS.items():
        query = f"SELECT {columns} FROM information_schema.{table} WHERE {kind}_schema = '{schema}'"
        found += rows(cursor, f"{query} ORDER BY {3 if kind == 'trigger' else 1}")
    found += rows(cursor, f"SELECT * FROM {schema}.t ORDER BY id")
    found += rows(cursor, f"SELECT {schema}.same('ABC'), {schema}.same('abc')")
    found += rows(cursor, f"SELECT `x y``z` FROM {schema}.z")
    return found + rows(cursor, f"SELECT * FROM {schema}.v ORDER BY id")


async def test_copy_has_everything_and_runs_as_restorer(dsn: str, cursor: Cursor, copier: MySQLCopier) -> None:
    reader, writer = made(dsn, "copy_a"), made(dsn, "copy_b")
    filled(cursor, "copy_a")
    survey = await copier.survey(reader, "copy_a")
    programs, events = await MySQLServer(dsn, reader.ca).stored_programs(names_of("copy_a", Engine.MYSQL))
    await copier.try_copy(survey, reader, programs, writer)
    made(dsn, "copy_b")
    with TemporaryFile() as file:
        await copier.dump(reader, programs, file)
        assert file.seek(0, 2) > 1000
        await copier.restore(writer, file)
    assert await copier.count(writer) == await copier.count(reader) == {"t": "3"}
    assert rows(cursor, "SELECT * FROM information_schema.events WHERE event_schema = 'copy_b'") == []
    await copier.finish(survey, writer, events)
    assert look(cursor, "copy_b") == look(cursor, "copy_a")
    definers = " UNION ALL ".join(
        f"SELECT definer FROM information_schema.{table} WHERE {kind}_schema = 'copy_b'"
        for table, (_, kind) in PROGRAMS.items()
        if table != "tables"
    )
    assert rows(cursor, definers) == [("copy_b@%",)] * 10


@pytest.mark.thorough
async def test_table_made_for_ever_does_not_hold_survey(dsn: str, cursor: Cursor, copier: MySQLCopier) -> None:
    reader = made(dsn, "copy_w")
    connection = await connected(reader)
    making = asyncio.create_task(run(connection, "CREATE TABLE t (n INT PRIMARY KEY) SELECT SLEEP(600) AS n"))
    sleeping = "SELECT 1 FROM performance_schema.threads WHERE PROCESSLIST_ID = %s AND PROCESSLIST_STATE = 'User sleep'"
    while not cursor.execute(sleeping, [connection.thread_id()]):
        await asyncio.sleep(0.01)
    async with asyncio.timeout(60):
        await copier.survey(reader, "copy_w")
    assert not making.done()
    cursor.execute("KILL %s", [connection.thread_id()])
    await asyncio.gather(making, return_exceptions=True)
    connection.close()


async def test_locked_table_does_not_hold_survey(
    dsn: str, cursor: Cursor, copier: MySQLCopier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "LOCK_SECONDS", 1)
    reader = made(dsn, "copy_l")
    cursor.execute("CREATE TABLE copy_l.t (n INT PRIMARY KEY, x DOUBLE)")
    session = await connected(reader)
    await run(session, "LOCK TABLES t WRITE")
    async with asyncio.timeout(60):
        with pytest.raises(GrantError, match="Lock wait timeout exceeded"):
            await copier.survey(reader, "copy_l")
    await run(session, "UNLOCK TABLES")
    session.close()
    assert (await copier.survey(reader, "copy_l")).tables == 1


async def test_program_that_copies_nothing_is_ended(
    dsn: str, cursor: Cursor, copier: MySQLCopier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "_PATIENCE", 0.1)
    tenant = made(dsn, "copy_e")
    cursor.execute("CREATE TABLE copy_e.t (n INT PRIMARY KEY)")
    cursor.execute("LOCK TABLES copy_e.t WRITE")
    async with asyncio.timeout(60):
        with TemporaryFile() as file, pytest.raises(GrantError, match=r"^mysqldump was stopped: nothing was copied"):
            await copier.dump(tenant, "", file)
        with TemporaryFile() as file:
            file.write(b"SELECT SLEEP(600);\n")
            with pytest.raises(GrantError, match=r"^mysql was stopped: nothing was copied"):
                await copier.restore(tenant, file)
    cursor.execute("UNLOCK TABLES")


OBSTACLES = {
    "key": ("CREATE TABLE copy_k.t (n INT)", "sql_require_primary_key"),
    "function": ("CREATE FUNCTION copy_k.f() RETURNS INT DETERMINISTIC RETURN 7", "log_bin_trust_function_creators"),
    "none": ("CREATE TABLE copy_k.t (n INT PRIMARY KEY)", ""),
}


@pytest.mark.parametrize("kind", OBSTACLES)
async def test_what_could_not_be_copied_is_found_before(
    dsn: str, cursor: Cursor, copier: MySQLCopier, kind: str
) -> None:
    statement, named = OBSTACLES[kind]
    reader, writer = made(dsn, "copy_k"), made(dsn, "copy_l")
    cursor.execute("SET sql_require_primary_key = 0")
    cursor.execute(statement)
    cursor.execute("SET GLOBAL sql_require_primary_key = 1, GLOBAL log_bin_trust_function_creators = 0")
    try:
        programs, _ = await MySQLServer(dsn, reader.ca).stored_programs(names_of("copy_k", Engine.MYSQL))
        survey = await copier.survey(reader, "copy_k")
        with pytest.raises(GrantError, match=named) if named else nullcontext():
            await copier.try_copy(survey, reader, programs, writer)
    finally:
        cursor.execute("SET GLOBAL log_bin_trust_function_creators = 1")


def test_older_server_takes_no_copy() -> None:
    assert MySQLCopier.refusal("9.7.4", "8.4.2") == "MySQL 8.4.2 is older than 9.7.4"


VALUES = {
    "float": ("FLOAT", "16777217", "v + 0e0", "a dump changes a FLOAT of more than six digits"),
    "short float": ("FLOAT", "0.1", "v + 0e0", ""),
    "minus zero": ("DOUBLE", "-0e0", "cast(v AS char)", "a dump changes -0, such as in the column 't.v'"),
    "date": ("JSON", "json_array(date '2026-01-02')", "json_type(v->'$[0]')", "a dump changes a date"),
    "bytes": ("JSON", "json_array(x'616263')", "json_type(v->'$[0]')", "a dump changes a date, a binary string"),
    "decimal": ("JSON", "json_array(1234567890123456789.5)", "v", "or a long number inside JSON"),
    "double": ("DOUBLE", "0.1e0 + 0.2e0", "v = 0.1e0 + 0.2e0", ""),
    "json": ("JSON", """'[0, -0.0, 1.5, 0.1, null, true, "2026-01-02", {"a": 1e300}]'""", "v", ""),
    "short decimal": ("JSON", "json_array(1.5)", "v", ""),
}


@pytest.mark.parametrize("kind", VALUES)
async def test_values_that_a_dump_changes_are_refused_before(
    dsn: str, cursor: Cursor, copier: MySQLCopier, kind: str
) -> None:
    """What is refused, and nothing else, arrives as another value."""
    column, value, shown, refusal = VALUES[kind]
    reader, writer = made(dsn, "copy_v"), made(dsn, "copy_w")
    cursor.execute(f"CREATE TABLE copy_v.t (n INT PRIMARY KEY, v {column})")
    cursor.execute(f"INSERT INTO copy_v.t SELECT 1, {value}")

    with pytest.raises(GrantError, match=f"^[^;]*{re.escape(refusal)}[^;]*$") if refusal else nullcontext():
        await copier.survey(reader, "copy_v")

    with TemporaryFile() as file:
        await copier.dump(reader, "", file)
        await copier.restore(writer, file)
    before, after = [rows(cursor, f"SELECT {shown} FROM {schema}.t") for schema in ("copy_v", "copy_w")]
    assert (before != after) == bool(refusal)


async def test_row_longer_than_a_packet_is_found_before(dsn: str, cursor: Cursor, copier: MySQLCopier) -> None:
    reader, writer = made(dsn, "copy_p"), made(dsn, "copy_q")
    cursor.execute("CREATE TABLE copy_p.t (n INT PRIMARY KEY, v LONGBLOB)")
    cursor.execute("INSERT INTO copy_p.t VALUES (1, repeat('a', 1000)), (2, repeat('a', 40000000))")
    survey = await copier.survey(reader, "copy_p")
    too_long = "^a row of 't' may need 80,000,000 bytes, and its max_allowed_packet is 67,108,864$"
    with pytest.raises(GrantError, match=too_long):
        await copier.try_copy(survey, reader, "", writer)
    cursor.execute("DELETE FROM copy_p.t WHERE n = 2")
    await copier.try_copy(await copier.survey(reader, "copy_p"), reader, "", writer)


HOSTILE = [
    b"\\! touch {}\n",
    b"system touch {}\n",
    b"SELECT 1;\nsource {}\n",
    b"tee {}\nSELECT 1;\n",
    b"LOAD DATA LOCAL INFILE '/etc/passwd' INTO TABLE t;\n",
    b"SELECT 1 INTO OUTFILE '{}';\n",
    b"CREATE DEFINER=`root`@`localhost` PROCEDURE x() SELECT 1;\n",
    b"GRANT ALL ON *.* TO CURRENT_USER;\n",
    b"USE mysql;\n",
]


@pytest.mark.parametrize("sql", HOSTILE, ids=lambda sql: sql[:12].decode())
async def test_hostile_file_has_rights_of_tenant_alone(
    dsn: str, cursor: Cursor, copier: MySQLCopier, tmp_path: Path, sql: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the client runs its own commands by default, as older ones do."""
    monkeypatch.setattr(copying, "_RESTORE", (*copying._RESTORE, "--loose-commands", "--loose-system-command"))
    writer = made(dsn, "copy_h")
    cursor.execute("CREATE TABLE copy_h.t (x TEXT, id INT PRIMARY KEY AUTO_INCREMENT)")
    tmp_path.chmod(0o777)
    with TemporaryFile() as file:
        file.write(sql.replace(b"{}", str(tmp_path / "made").encode()))
        with pytest.raises(GrantError) as refused:
            await copier.restore(writer, file)
    assert not (tmp_path / "made").exists()
    assert leaks(refused.value, PASSWORD, "s#s;w") == []


async def test_password_not_in_process_list(dsn: str, copier: MySQLCopier) -> None:
    """And a program whose work was cancelled is gone."""
    name = f"copy_{os.getpid()}"  # others may run this test beside it
    with TemporaryFile() as file:
        file.write(b"SELECT SLEEP(600);\n")
        running = asyncio.create_task(copier.restore(made(dsn, name), file))
        while not (found := command_lines(name)):
            await asyncio.sleep(0.02)
        # The program replaces the value of this option in the list, a moment after it starts.
        assert not any(PASSWORD in command or "--password" in command for command in found)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert not command_lines(name)


async def test_programs_of_mariadb_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("mysqldump", "mysql"):
        (tmp_path / name).write_text(
            "#!/bin/sh\necho 'mysqldump from 11.8.9-MariaDB, client 10.20 for debian-linux-gnu'\n"
        )
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        ConfigurationError, match=r"of MySQL are required, and found were: mysqldump from 11.8.9-MariaDB"
    ):
        await MySQLCopier.with_tools(names_of("copy", Engine.MYSQL), "", "", has_tls=False)
