"""The page about backups: its commands run from its top, on real servers."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import unquote

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from aiodbclient import DatabaseClient
from aiodbclient._dsn import mysql_parts
from aiodbclient.sandbox import Sandbox
from aiodbclient.sandbox._embedded import wheel_programs

from ..mysql import SERVERS, running

# Each test runs a dozen commands.
pytestmark = pytest.mark.thorough

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to"
PAGE = (HOW_TO / "back-up.md").read_text()
MOVE = (HOW_TO / "move.md").read_text()
FILL = """
CREATE SCHEMA shop; CREATE TABLE shop.orders (id serial PRIMARY KEY, what text);
INSERT INTO shop.orders (what) SELECT g::text FROM generate_series(1, 1000) g;
CREATE VIEW how_many AS SELECT count(*) FROM shop.orders; SELECT lo_create(4711);
CREATE EXTENSION hstore; COMMENT ON TABLE shop.orders IS $$of the shop$$;
"""
FILL_MYSQL = """
CREATE TABLE orders (id int PRIMARY KEY); INSERT INTO orders VALUES (1), (2);
CREATE VIEW how_many AS SELECT count(*) n FROM orders;
"""


def commands(heading: str, page: str = PAGE) -> str:
    """The blocks below a heading."""
    section = page.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    found = re.findall(r"^```console\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    assert found, heading
    return "".join(found)


class Shell:
    """A shell with the environment that the page expects."""

    def __init__(self, sandbox: Sandbox, folder: Path, programs: Path | None = None) -> None:
        self.sandbox = sandbox
        place = {"AIODBCLIENT_CLUSTER": "first", "AIODBCLIENT_STORE": "tenants.db"}
        place |= {"DIGITALOCEAN_TOKEN": sandbox.token, "DIGITALOCEAN_API_URL": sandbox.url}
        folders = [Path(sys.executable).parent, *([] if programs is None else [programs]), os.environ["PATH"]]
        path = ":".join(map(str, folders))
        self.environment = os.environ | place | {"PATH": path}
        self.folder = folder

    def __call__(self, script: str) -> str:
        done = subprocess.run(
            ["bash", "-euc", script], cwd=self.folder, env=self.environment, capture_output=True, text=True
        )
        assert done.returncode == 0, (script, done.stdout, done.stderr)
        return done.stdout

    def sql(self, tenant: str, statement: str, *, role: str = "owner", cluster: str = "first") -> str:
        options = f"--role {role} --cluster {cluster}"
        return self(f"aiodbclient tenants exec {tenant} {options} -- psql -qAt -c '{statement}'").strip()

    def uris(self) -> list[str]:
        """Of the administrator of each cluster."""

        async def read() -> list[str]:
            async with DatabaseClient(self.sandbox.token, base_url=self.sandbox.url) as client:
                clusters = await client.clusters.list()
                return [(await client.cluster(each.id).info()).connection.uri or "" for each in clusters]

        return asyncio.run(read())

    def as_administrator(self, database: str, statement: str) -> None:
        [uri] = self.uris()
        dsn = make_conninfo(uri, dbname=database)
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(statement.encode())

    def mysql(self, tenant: str, statement: str) -> str:
        options = '--host="$MYSQL_HOST" --user="$MYSQL_USER" --ssl-ca="$MYSQL_SSL_CA" -N "$MYSQL_DATABASE"'
        return self(f"aiodbclient tenants exec {tenant} -- sh -c 'mysql {options} -e \"{statement}\"'").strip()


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """A shell with the programs of the embedded server, which have no TLS."""
    found = wheel_programs()
    assert found is not None
    with Sandbox(windows=[]) as sandbox:
        asyncio.run(sandbox.add_cluster("pg", "first", backend="postgres"))
        yield Shell(sandbox, tmp_path, programs=found)


def test_dump_and_restore_postgresql(shell: Shell) -> None:
    """With an extension of the tenant's own, a large object, and a reader."""
    shell("aiodbclient tenants provision acme && aiodbclient tenants provision acme --role reader")
    shell.sql("acme", FILL)
    shell(commands("Dump and restore on PostgreSQL"))
    assert shell.sql("acme-copy", "SELECT count FROM how_many") == "1000"
    assert shell.sql("acme-copy", "SELECT count(*) FROM shop.orders", role="reader") == "1000"
    owners = "SELECT DISTINCT tableowner = current_user FROM pg_tables WHERE schemaname = $$shop$$"
    assert shell.sql("acme-copy", owners) == "t"
    shell("aiodbclient tenants check")


def test_restore_errors_of_the_page(shell: Shell) -> None:
    """The administrator made an extension in the new database, and the tenant made its schema ``public`` anew."""
    shell("aiodbclient tenants provision acme acme-copy")
    shell.sql(
        "acme", "DROP SCHEMA public; CREATE SCHEMA public; CREATE EXTENSION pg_trgm; CREATE TABLE t AS SELECT 7 n"
    )
    shell.as_administrator("acme-copy", "CREATE EXTENSION pg_trgm SCHEMA public")
    shell(commands("Dump and restore on PostgreSQL").splitlines()[0])
    restore = "aiodbclient tenants exec acme-copy -- pg_restore --no-owner --no-acl --dbname=acme-copy"
    said = "must be owner of extension"
    assert said in shell(f"{restore} acme.dump 2>&1 || true")
    assert said in PAGE
    shell.sql("acme-copy", "DROP TABLE t")
    shell(f"{restore} --no-comments acme.dump")
    assert shell.sql("acme-copy", "SELECT n FROM t") == "7"


@pytest.mark.parametrize("server", [server for server in SERVERS if server != "given"])
def test_dump_and_restore_mysql(tmp_path: Path, server: str) -> None:
    with running(server, tmp_path) as dsn, Sandbox(windows=[]) as sandbox:
        asyncio.run(sandbox.add_cluster("mysql", "first", server=dsn))
        shell = Shell(sandbox, tmp_path)
        shell("aiodbclient tenants provision acme")
        shell.mysql("acme", FILL_MYSQL)
        shell(commands("Dump and restore on MySQL"))
        shell.mysql("acme-copy", "INSERT INTO orders VALUES (3)")
        assert shell.mysql("acme-copy", "SELECT n FROM how_many") == "3"


@pytest.mark.parametrize("server", [server for server in SERVERS if server not in ("given", "none")])
def test_move_by_hand_on_mysql(tmp_path: Path, server: str) -> None:
    folders = [tmp_path / name for name in ("old", "new")]
    for folder in folders:
        folder.mkdir(mode=0o777)
    with ExitStack() as stack, Sandbox(windows=[]) as sandbox:
        for folder, name in zip(folders, ("tenants-prod", "tenants-2"), strict=True):
            dsn = stack.enter_context(running(server, folder))
            asyncio.run(sandbox.add_cluster("mysql", name, server=dsn))
        shell = Shell(sandbox, tmp_path)
        for folder, uri in zip(folders, shell.uris(), strict=True):
            options = mysql_parts(uri)
            assert options is not None
            tmp_path.joinpath(f"{folder.name}.cnf").write_text(
                f"[client]\nhost={options.hostname}\nport={options.port}\nuser={options.username}\n"
                f'password="{unquote(options.password or "")}"\nssl-ca={folder}/ca.pem\n'
            )
        shell.environment["AIODBCLIENT_CLUSTER"] = "tenants-prod"
        shell("aiodbclient tenants provision acme")
        shell.mysql("acme", FILL_MYSQL)
        shell(commands("Move on MySQL by hand", MOVE))
        shell.environment["AIODBCLIENT_CLUSTER"] = "tenants-2"
        shell("aiodbclient tenants provision acme --role reader && aiodbclient tenants check")
        shell.mysql("acme", "INSERT INTO orders VALUES (3)")
        assert shell.mysql("acme", "SELECT n FROM how_many") == "3"
