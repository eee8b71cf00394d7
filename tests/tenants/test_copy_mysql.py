"""Databases of MySQL are dumped and restored by programs, with the rights of the tenant alone."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryFile
from urllib.parse import unquote, urlsplit

import pytest
from pymysql.cursors import Cursor

from aiodbclient.engines import Engine
from aiodbclient.errors import ConfigurationError
from aiodbclient.tenants import Credential
from aiodbclient.tenants._copy.mysql import MySQLCopier
from aiodbclient.tenants._naming import names_of
from aiodbclient.tenants._servers.mysql import MySQLServer
from aiodbclient.tenants.errors import GrantError

from ..mysql import SERVERS, administrator
from .moves import connected, run
from .test_copy_postgres import frames_of

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


def login(dsn: str, user: str, database: str) -> Credential:
    parts = urlsplit(dsn)
    ca = Path(unquote(parts.query.removeprefix("ssl-ca="))).read_text()
    return Credential(
        name=database,
        username=user,
        password=PASSWORD,
        database=database,
        host="127.0.0.1",
        port=parts.port or 0,
        engine=Engine.MYSQL,
        uri="",
        ca=ca,
    )


def made(cursor: Cursor, user: str) -> None:
    cursor.execute(f"DROP USER IF EXISTS {user}@'%'")
    cursor.execute(f"DROP DATABASE IF EXISTS {user}")
    cursor.execute(f"CREATE DATABASE {user}")
    cursor.execute(f"CREATE USER {user}@'%%' IDENTIFIED BY %s", [PASSWORD])
    cursor.execute(f"GRANT ALL ON {user}.* TO {user}@'%'")


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


def look(cursor: Cursor, schema: str) -> list[object]:
    """What is in a schema, without definers."""
    cursor.execute(
        "SELECT routine_name, routine_definition, sql_mode FROM information_schema.routines "
        "WHERE routine_schema = %s ORDER BY 1",
        [schema],
    )
    found: list[object] = [*cursor.fetchall()]
    cursor.execute(
        "SELECT trigger_name, action_statement, action_order FROM information_schema.triggers "
        "WHERE trigger_schema = %s ORDER BY action_order",
        [schema],
    )
    found += cursor.fetchall()
    cursor.execute(
        "SELECT event_name, event_definition, time_zone, starts FROM information_schema.events WHERE event_schema = %s",
        [schema],
    )
    found += cursor.fetchall()
    cursor.execute(
        "SELECT table_name, table_comment FROM information_schema.tables WHERE table_schema = %s ORDER BY 1", [schema]
    )
    found += cursor.fetchall()
    cursor.execute(
        "SELECT table_name, security_type FROM information_schema.views WHERE table_schema = %s ORDER BY 1", [schema]
    )
    found += cursor.fetchall()
    cursor.execute(f"SELECT * FROM {schema}.t ORDER BY id")
    found += cursor.fetchall()
    cursor.execute(f"SELECT {schema}.same('ABC'), {schema}.same('abc')")
    found += cursor.fetchall()
    cursor.execute(f"SELECT `x y``z` FROM {schema}.z")
    found += cursor.fetchall()
    cursor.execute(f"SELECT * FROM {schema}.v ORDER BY id")
    return [*found, *cursor.fetchall()]


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest, mysql: Callable[[str], str]) -> str:
    return mysql(request.param)


async def test_a_copy_has_everything_and_its_definer_is_who_restored_it(server: str) -> None:
    with administrator(server) as cursor:
        made(cursor, "copy_a")
        made(cursor, "copy_b")
        filled(cursor, "copy_a")
        cursor.execute("SET GLOBAL log_bin_trust_function_creators = 1")  # otherwise only a superuser makes a trigger
        copier = await MySQLCopier.with_programs(names_of("copy", Engine.MYSQL), "", "", has_tls=False)
        reader, writer = login(server, "copy_a", "copy_a"), login(server, "copy_b", "copy_b")
        survey = await copier.survey(reader, "copy_a")
        programs, events = await MySQLServer(server, reader.ca).programs(names_of("copy_a", Engine.MYSQL))
        assert await copier.obstacles(survey, reader, programs, writer) == []
        made(cursor, "copy_b")
        with TemporaryFile() as file:
            await copier.dump(reader, programs, file)
            assert file.seek(0, 2) > 1000
            await copier.restore(writer, file)
        assert await copier.count(writer) == await copier.count(reader) == {"t": "3"}
        cursor.execute("SELECT count(*) FROM information_schema.events WHERE event_schema = 'copy_b'")
        assert cursor.fetchall() == ((0,),)
        await copier.finish(survey, writer, events)
        assert look(cursor, "copy_b") == look(cursor, "copy_a")
        cursor.execute(
            "SELECT definer FROM information_schema.routines WHERE routine_schema = 'copy_b' UNION ALL "
            "SELECT definer FROM information_schema.triggers WHERE trigger_schema = 'copy_b' UNION ALL "
            "SELECT definer FROM information_schema.views WHERE table_schema = 'copy_b' UNION ALL "
            "SELECT definer FROM information_schema.events WHERE event_schema = 'copy_b'"
        )
        assert cursor.fetchall() == (("copy_b@%",),) * 10


@pytest.mark.thorough
async def test_a_table_that_a_tenant_makes_for_ever_does_not_hold_up_a_survey_for_ever(server: str) -> None:
    with administrator(server) as cursor:
        made(cursor, "copy_w")
        copier = await MySQLCopier.with_programs(names_of("copy", Engine.MYSQL), "", "", has_tls=False)
        reader = login(server, "copy_w", "copy_w")
        connection = await connected(reader)
        making = asyncio.create_task(run(connection, "CREATE TABLE t (n INT PRIMARY KEY) SELECT SLEEP(600) AS n"))
        sleeping = (
            "SELECT 1 FROM performance_schema.threads WHERE PROCESSLIST_ID = %s AND PROCESSLIST_STATE = 'User sleep'"
        )
        while not cursor.execute(sleeping, [connection.thread_id()]):
            await asyncio.sleep(0.01)
        async with asyncio.timeout(60):
            await copier.survey(reader, "copy_w")
        assert not making.done()
        cursor.execute("KILL %s", [connection.thread_id()])
        await asyncio.gather(making, return_exceptions=True)
        connection.close()


OBSTACLES = {
    "key": ("CREATE TABLE copy_k.t (n INT)", "sql_require_primary_key"),
    "function": ("CREATE FUNCTION copy_k.f() RETURNS INT DETERMINISTIC RETURN 7", "log_bin_trust_function_creators"),
    "none": ("CREATE TABLE copy_k.t (n INT PRIMARY KEY)", ""),
}


@pytest.mark.parametrize("kind", OBSTACLES)
async def test_what_could_not_be_copied_is_found_before(server: str, kind: str) -> None:
    statement, named = OBSTACLES[kind]
    with administrator(server) as cursor:
        made(cursor, "copy_k")
        made(cursor, "copy_l")
        cursor.execute("SET sql_require_primary_key = 0")
        cursor.execute(statement)
        cursor.execute("SET GLOBAL sql_require_primary_key = 1")
        cursor.execute("SET GLOBAL log_bin_trust_function_creators = 0")
        try:
            copier = await MySQLCopier.with_programs(names_of("copy", Engine.MYSQL), "", "", has_tls=False)
            reader, writer = login(server, "copy_k", "copy_k"), login(server, "copy_l", "copy_l")
            programs, _ = await MySQLServer(server, reader.ca).programs(names_of("copy_k", Engine.MYSQL))
            survey = await copier.survey(reader, "copy_k")
            found = await copier.obstacles(survey, reader, programs, writer)
        finally:
            cursor.execute("SET GLOBAL log_bin_trust_function_creators = 1")
    assert [named in each for each in found] == [True] * bool(named)


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
async def test_values_that_a_dump_changes_are_refused_before(server: str, kind: str) -> None:
    """What is refused, and nothing else, arrives as another value."""
    column, value, shown, refusal = VALUES[kind]
    with administrator(server) as cursor:
        made(cursor, "copy_v")
        made(cursor, "copy_w")
        cursor.execute(f"CREATE TABLE copy_v.t (n INT PRIMARY KEY, v {column})")
        cursor.execute(f"INSERT INTO copy_v.t SELECT 1, {value}")
        copier = await MySQLCopier.with_programs(names_of("copy", Engine.MYSQL), "", "", has_tls=False)
        reader, writer = login(server, "copy_v", "copy_v"), login(server, "copy_w", "copy_w")

        survey = await copier.survey(reader, "copy_v")

        assert [refusal in each for each in survey.refusals] == [True] * bool(refusal)
        with TemporaryFile() as file:
            await copier.dump(reader, "", file)
            await copier.restore(writer, file)
        found = list[object]()
        for schema in ("copy_v", "copy_w"):
            cursor.execute(f"SELECT {shown} FROM {schema}.t")
            found += cursor.fetchall()
        assert (found[0] != found[1]) == bool(refusal)


async def test_row_longer_than_a_packet_is_found_before(server: str) -> None:
    with administrator(server) as cursor:
        made(cursor, "copy_p")
        cursor.execute("CREATE TABLE copy_p.t (n INT PRIMARY KEY, v LONGBLOB)")
        cursor.execute("INSERT INTO copy_p.t VALUES (1, repeat('a', 1000)), (2, repeat('a', 40000000))")
        copier = await MySQLCopier.with_programs(names_of("copy", Engine.MYSQL), "", "", has_tls=False)
        made(cursor, "copy_q")
        reader, writer = login(server, "copy_p", "copy_p"), login(server, "copy_q", "copy_q")
        survey = await copier.survey(reader, "copy_p")
        assert await copier.obstacles(survey, reader, "", writer) == [
            "a row of 't' may need 80,000,000 bytes, and its max_allowed_packet is 67,108,864"
        ]
        cursor.execute("DELETE FROM copy_p.t WHERE n = 2")
        assert await copier.obstacles(await copier.survey(reader, "copy_p"), reader, "", writer) == []


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
async def test_a_hostile_file_has_the_rights_of_the_tenant_alone(server: str, tmp_path: Path, sql: bytes) -> None:
    with administrator(server) as cursor:
        made(cursor, "copy_h")
        cursor.execute("CREATE TABLE copy_h.t (x TEXT, id INT PRIMARY KEY AUTO_INCREMENT)")
        copier = await MySQLCopier.with_programs(names_of("copy", Engine.MYSQL), "", "", has_tls=False)
        tmp_path.chmod(0o777)
        with TemporaryFile() as file:
            file.write(sql.replace(b"{}", str(tmp_path / "made").encode()))
            with pytest.raises(GrantError) as refused:
                await copier.restore(login(server, "copy_h", "copy_h"), file)
        assert not (tmp_path / "made").exists()
        assert PASSWORD not in str(refused.value)
        assert not [frame.f_code for frame in frames_of(refused.value) if "s#s;w" in repr(frame.f_locals)]


async def test_a_password_is_not_in_the_process_list_and_a_cancelled_program_is_gone(server: str) -> None:
    name = f"copy_{os.getpid()}"  # others may run this test beside it
    with administrator(server) as cursor:
        made(cursor, name)
        copier = await MySQLCopier.with_programs(names_of("copy", Engine.MYSQL), "", "", has_tls=False)
        with TemporaryFile() as file:
            file.write(b"SELECT SLEEP(600);\n")
            running = asyncio.create_task(copier.restore(login(server, name, name), file))
            while not (found := [*_processes(name.encode())]):
                await asyncio.sleep(0.02)
            assert not any(PASSWORD.encode() in command for command in found)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            assert not [*_processes(name.encode())]


def _processes(word: bytes) -> list[bytes]:
    found = list[bytes]()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            command = (path / "cmdline").read_bytes() + (path / "environ").read_bytes() * 0
        except OSError:
            continue
        if word in command and b"python" not in command:
            found.append(command)
    return found


async def test_programs_of_the_other_maker_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("mysqldump", "mysql"):
        (tmp_path / name).write_text(
            "#!/bin/sh\necho 'mysqldump from 11.8.9-MariaDB, client 10.20 for debian-linux-gnu'\n"
        )
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        ConfigurationError, match=r"of MySQL are required, and found were: mysqldump from 11.8.9-MariaDB"
    ):
        await MySQLCopier.with_programs(names_of("copy", Engine.MYSQL), "", "", has_tls=False)


def version(cursor: Cursor) -> str:
    cursor.execute("SELECT VERSION()")
    ((text,),) = cursor.fetchall()
    return str(text)
