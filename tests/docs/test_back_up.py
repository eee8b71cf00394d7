"""The page about backups: its commands run from its top, on real servers."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from aiodbclient.sandbox import Sandbox

from ..mysql import SERVERS, administrator, running

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "back-up.md").read_text()
FILL = """
CREATE SCHEMA shop; CREATE TABLE shop.orders (id serial PRIMARY KEY, what text);
INSERT INTO shop.orders (what) SELECT g::text FROM generate_series(1, 1000) g;
CREATE VIEW how_many AS SELECT count(*) FROM shop.orders; SELECT lo_create(4711);
"""
FILL_MYSQL = """
CREATE TABLE orders (id int PRIMARY KEY); INSERT INTO orders VALUES (1), (2);
CREATE VIEW how_many AS SELECT count(*) n FROM orders;
CREATE FUNCTION seven() RETURNS int DETERMINISTIC RETURN 7;
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

    def mysql(self, program: str, tenant: str, statement: str) -> str:
        options = '--host="$MYSQL_HOST" --user="$MYSQL_USER" --ssl-ca="$MYSQL_SSL_CA" -N "$MYSQL_DATABASE"'
        return self(f"aiodbclient tenants exec {tenant} -- sh -c '{program} {options} -e \"{statement}\"'").strip()


def test_a_tenant_of_postgresql_is_dumped_and_loaded_into_another(tmp_path: Path) -> None:
    with Sandbox(windows=[]) as sandbox:
        asyncio.run(sandbox.add_cluster("pg", "first", backend="postgres"))
        shell = Shell(sandbox, tmp_path)
        shell("aiodbclient tenants provision alpha && aiodbclient tenants provision alpha --role reader")
        shell.sql("alpha", FILL)
        shell("".join(dump_and_load()))
        assert sorted(each.name for each in (tmp_path / "backups").iterdir()) == ["alpha.dump", "alpha.json"]
        assert shell.sql("beta", "SELECT count FROM how_many") == "1000"
        owners = "SELECT DISTINCT tableowner = current_user FROM pg_tables WHERE schemaname = $$shop$$"
        assert shell.sql("beta", owners) == "t"


@pytest.mark.parametrize("server", [server for server in SERVERS if server != "given"])
def test_a_tenant_of_mysql_is_dumped_and_loaded_into_another(tmp_path: Path, server: str) -> None:
    with running(server, tmp_path) as dsn, Sandbox(windows=[]) as sandbox:
        asyncio.run(sandbox.add_cluster("mysql", "first", dsn=dsn))
        with administrator(dsn) as cursor:
            cursor.execute("SET GLOBAL log_bin_trust_function_creators = 1")
        shell = Shell(sandbox, tmp_path)
        shell("aiodbclient tenants provision alpha")
        shell.mysql(server, "alpha", FILL_MYSQL)
        shell("".join(dump_and_load()).replace("alpha.dump", "alpha.sql"))
        assert shell.mysql(server, "beta", "SELECT n, seven() FROM how_many") == "2\t7"


def dump_and_load() -> list[str]:
    return [*commands("Dump a tenant"), *commands("Load a file into a tenant")]
