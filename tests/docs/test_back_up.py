"""The page about backups: its commands run from its top, on real servers with their own programs."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from aiodbclient.sandbox import Sandbox

from ..mysql import SERVERS, running
from ..requirements import no_server

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "back-up.md").read_text()
# pg_dump refuses a server that is newer than itself, so the server is the one that is installed with it.
POSTGRESQL = max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)
FILL = """
CREATE SCHEMA shop; CREATE TABLE shop.orders (id serial PRIMARY KEY, what text);
INSERT INTO shop.orders (what) SELECT g::text FROM generate_series(1, 1000) g;
CREATE VIEW how_many AS SELECT count(*) FROM shop.orders; SELECT lo_create(4711);
"""
FILL_MYSQL = """
CREATE TABLE orders (id int); INSERT INTO orders VALUES (1), (2); CREATE VIEW how_many AS SELECT count(*) n FROM orders;
CREATE FUNCTION one() RETURNS int DETERMINISTIC RETURN 1;
"""


def commands(*headings: str) -> list[str]:
    """The blocks below a heading, given with those above it."""
    text = PAGE
    for level, heading in enumerate(headings, 2):
        mark = "#" * level
        text = text.partition(f"\n{mark} {heading}\n")[2].partition(f"\n{mark} ")[0]
    found = re.findall(r"^```console\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert found, headings
    return found


class Shell:
    """A shell with the environment that the page expects."""

    def __init__(self, sandbox: Sandbox, folder: Path, **environment: str) -> None:
        place = {"AIODBCLIENT_CLUSTER": "first", "AIODBCLIENT_STORE": "tenants.db"}
        place |= {"DIGITALOCEAN_TOKEN": sandbox.token, "DIGITALOCEAN_API_URL": sandbox.url}
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self.environment = os.environ | place | environment | {"PATH": path}
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

    def mysql(self, tenant: str, statement: str) -> str:
        client = 'mysql --host="$MYSQL_HOST" --user="$MYSQL_USER" --ssl-ca="$MYSQL_SSL_CA" -N "$MYSQL_DATABASE"'
        return self(f"aiodbclient tenants exec {tenant} -- sh -c '{client} -e \"{statement}\"'").strip()


@pytest.fixture
def postgresql(tmp_path: Path) -> Iterator[Shell]:
    if POSTGRESQL is None:
        no_server("postgresql", "no PostgreSQL is installed: apt-get install postgresql")
    with Sandbox(windows=[]) as sandbox:
        for name in ("first", "second"):
            asyncio.run(sandbox.add_cluster("pg", name, backend="postgres", server=POSTGRESQL))
        shell = Shell(sandbox, tmp_path, OTHER_CLUSTER="second")
        shell("aiodbclient tenants provision alpha && aiodbclient tenants provision alpha --role reader")
        shell.sql("alpha", FILL)
        yield shell


def test_a_tenant_of_postgresql_is_restored_into_itself_and_into_another(postgresql: Shell) -> None:
    shell = postgresql
    [back_up] = commands("PostgreSQL", "Back up one tenant")
    shell(back_up)
    shell.sql("alpha", "DROP TABLE shop.orders CASCADE; CREATE TABLE newer ()")

    [restore] = commands("PostgreSQL", "Restore into the same tenant")
    shell(restore)
    assert shell.sql("alpha", "SELECT count FROM how_many") == "1000"
    assert shell.sql("alpha", "SELECT count(*) FROM shop.orders", role="reader") == "1000"
    assert shell.sql("alpha", "SELECT count(*) FROM newer") == "0"

    [into_another] = commands("PostgreSQL", "Restore into another tenant")
    shell(into_another)
    assert shell.sql("beta", "SELECT count FROM how_many") == "1000"
    owners = "SELECT DISTINCT tableowner = current_user FROM pg_tables WHERE schemaname = $$shop$$"
    assert shell.sql("beta", owners) == "t"


def test_a_tenant_is_moved_to_another_cluster_and_back(postgresql: Shell) -> None:
    shell = postgresql
    there, back = commands("Move a tenant to another cluster")

    shell(there)
    assert shell.sql("alpha", "SELECT count FROM how_many", cluster="second") == "1000"

    shell(back)
    assert shell.sql("alpha", "SELECT count FROM how_many") == "1000"
    assert shell.sql("alpha", "DROP TABLE shop.orders CASCADE; SELECT 1") == "1"


@pytest.mark.parametrize("server", [server for server in SERVERS if server != "given"])
def test_a_tenant_of_mysql_is_restored(tmp_path: Path, server: str) -> None:
    with running(server, tmp_path) as dsn:
        if shutil.which("mysqldump") is None or (server == "mysql" and shutil.which("mariadb-dump") is not None):
            pytest.skip("the programs are not those of this server")
        with Sandbox(windows=[]) as sandbox:
            asyncio.run(sandbox.add_cluster("mysql", "first", dsn=dsn))
            shell = Shell(sandbox, tmp_path)
            shell("aiodbclient tenants provision alpha")
            shell.mysql("alpha", FILL_MYSQL)
            for heading in ("Back up one tenant", "Restore"):
                [block] = commands("MySQL", heading)
                if server == "mysql":
                    block = block.replace("--no-tablespaces", "--no-tablespaces --set-gtid-purged=OFF")
                shell(block)

            assert shell.mysql("beta", "SELECT n, one() FROM how_many") == "2\t1"
