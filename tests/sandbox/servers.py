"""The servers behind clusters: what is different between PostgreSQL and MySQL for the same test."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote, urlsplit

import psycopg
import pymysql
from attrs import define

from aiodbclient.sandbox import Sandbox

JSON = dict[str, Any]
NASTY = ["a'; DROP USER root; --", "ü-ß-日本", "a b/c%2F", "{}%s$1"]
BLANKS = " lead", " root", "trail ", "tab\t", "\nline", " doadmin"


@define
class Server:
    """The server behind a cluster. Its drivers may block, since the sandbox serves in another thread."""

    sandbox: Sandbox
    cluster: str
    connection: JSON
    dsn: str = ""  # of the administrator, with the file of its CA, where the server is not the sandbox's own

    @property
    def path(self) -> str:
        return f"/v2/databases/{self.cluster}"

    @property
    def doadmin(self) -> JSON:
        return {"name": "doadmin", "password": self.connection["password"]}


class Postgres(Server):
    engine = "pg"
    error = psycopg.Error
    names = (*NASTY, 'a"b', "x" * 63)
    refused_names = ("_dodb", "pg_mine", "public", "none", "x" * 64, "é" * 32)
    refused_dbs = ("defaultdb", "x" * 64)
    hidden_users = ("_dodb", "postgres", "pg_monitor", "pg_read_all_data", "nobody")
    hidden_dbs = ("postgres", "template0", "template1")
    use = ("BEGIN", "SELECT 1")
    by_hand = ("CREATE ROLE by_hand LOGIN PASSWORD 'one'", "CREATE ROLE no_user", "CREATE DATABASE by_hand")
    change_by_hand = "ALTER ROLE by_hand PASSWORD 'changed'"
    change_doadmin = "ALTER ROLE doadmin NOLOGIN"
    restore_doadmin = "ALTER ROLE doadmin LOGIN"
    whoami = "SELECT current_user::text, current_database()::text"
    ca_option, with_tls, without_ca = "sslrootcert", "sslmode=require", {"": True}

    def login(self, user: JSON, database: str = "defaultdb") -> Any:
        where = {key: self.connection[key] for key in ("host", "port")}
        login = {"user": user["name"], "password": user["password"]}
        return psycopg.connect(**where, **login, dbname=database, autocommit=True)

    def admin(self) -> Any:
        return psycopg.connect(self.dsn, autocommit=True) if self.dsn else self.login(self.doadmin)

    def run(self, session: Any, statement: str) -> Any:
        cursor = session.execute(statement.encode())
        return cursor.fetchone() if cursor.description else None


class MySQL(Server):
    engine = "mysql"
    error = pymysql.Error
    names = (*NASTY, "a`b", "100%_sure", "back\\slash", "x" * 32)
    refused_names = ("x" * 33, "x ", "mysql.sys", *BLANKS)  # the server would cut off spaces
    refused_dbs = ("x" * 65, "😀", *BLANKS)
    hidden_users = ("mysql.sys", "mysql")
    hidden_dbs = ("mysql", "information_schema", "performance_schema", "sys")
    use = ("CREATE TABLE t (a int PRIMARY KEY)", "BEGIN", "SELECT * FROM t")  # locks the table
    by_hand = ("CREATE USER by_hand@'%' IDENTIFIED BY 'one'", "CREATE ROLE no_user", "CREATE DATABASE by_hand")
    change_by_hand = "ALTER USER by_hand@'%' IDENTIFIED BY 'changed'"
    change_doadmin = "ALTER USER doadmin@'%' ACCOUNT LOCK"
    restore_doadmin = "ALTER USER doadmin@'%' ACCOUNT UNLOCK"
    whoami = "SELECT SUBSTRING_INDEX(USER(), '@', 1), DATABASE()"
    ca_option, with_tls, without_ca = "ssl-ca", "ssl-mode=REQUIRED", {"": True, "?ssl-mode=DISABLED": False}

    def login(self, user: JSON, database: str | None = None) -> Any:
        where: dict[str, Any] = {key: self.connection[key] for key in ("host", "port")}
        return pymysql.connect(
            **where, user=user["name"], password=user["password"], database=database, autocommit=True
        )

    def admin(self) -> Any:
        parts = urlsplit(self.dsn)
        return self.login({"name": unquote(parts.username or ""), "password": unquote(parts.password or "")})

    def run(self, session: Any, statement: str) -> Any:
        with session.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchone()
