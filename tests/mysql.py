"""Start MySQL for the tests, or use the server at AIODBCLIENT_MYSQL_DSN, the URL of an administrator."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import pymysql
import trustme
from pymysql.cursors import Cursor

from .proc import free_port
from .requirements import NO_MYSQL, no_server
from .run_folder import made_once

PASSWORD = "p@ss:word/%"
START_SECONDS = 60.0


SERVERS = ["given" if "AIODBCLIENT_MYSQL_DSN" in os.environ else "none" if NO_MYSQL else "mysql"]
PATTERNS = "mysql-patterns"  # MySQL with partial_revokes=OFF, where GRANT takes the name of a schema as a pattern


@contextmanager
def running(server: str, folder: Path) -> Iterator[str]:
    """Run ``server`` with its data in ``folder``. Yields an administrator's DSN."""
    if server == "given":
        yield from _left_as_it_was(os.environ["AIODBCLIENT_MYSQL_DSN"])
        return
    own = RestartableMySQL(server, folder)
    try:
        yield own.dsn
    finally:
        own.kill()


def _left_as_it_was(dsn: str) -> Iterator[str]:
    """Yield ``dsn``, and afterwards remove all new accounts and databases."""
    with administrator(dsn) as cursor:
        cursor.execute("SET GLOBAL log_bin_trust_function_creators = 1, GLOBAL event_scheduler = 1")
        before = _everything(cursor)
    yield dsn
    with administrator(dsn) as cursor:
        for name, *host_of_account in _everything(cursor) - before:
            if host_of_account:
                cursor.execute("DROP USER %s@%s", [name, *host_of_account])
            else:
                cursor.execute("DROP DATABASE `{}`".format(name.replace("`", "``")))


@contextmanager
def administrator(dsn: str) -> Iterator[Cursor]:
    """A cursor of the administrator at ``dsn``, without TLS."""
    parts = urlsplit(dsn)
    with (
        pymysql.connect(
            host=parts.hostname,
            port=parts.port or 3306,
            user=unquote(parts.username or ""),
            password=unquote(parts.password or ""),
            autocommit=True,
        ) as connection,
        connection.cursor() as cursor,
    ):
        yield cursor


def run(connection: pymysql.Connection[Cursor], statement: str, *values: object) -> list[tuple[Any, ...]]:
    """Run one statement, and return its rows."""
    with connection.cursor() as cursor:
        cursor.execute(statement, values or None)
        return list(cursor.fetchall())


def in_grant(cursor: Cursor, schema: str) -> str:
    """The name of a schema as GRANT of this server takes it."""
    cursor.execute("SELECT @@partial_revokes")
    if cursor.fetchall() == ((1,),):
        return schema
    return schema.replace("\\", "\\\\").replace("_", "\\_").replace("%", "\\%")


def _everything(cursor: Cursor) -> set[tuple[str, ...]]:
    """The accounts, each a name and a host, and the databases, each a name."""
    cursor.execute("SELECT User, Host FROM mysql.user")
    accounts = {tuple(row) for row in cursor.fetchall()}
    cursor.execute("SHOW DATABASES")
    return accounts | {tuple(row) for row in cursor.fetchall()}


AS_ROOT = ["--user=root"] if os.geteuid() == 0 else []


@cache
def _initialized() -> Path:
    """The data of a new server. It takes three seconds to make, and a tenth to copy."""

    def initialize(folder: Path) -> None:
        command = ["mysqld", "--no-defaults", *AS_ROOT, f"--datadir={folder / 'data'}", "--initialize-insecure"]
        subprocess.run(command, check=True, capture_output=True)

    return made_once("new-mysql", initialize) / "data"


def command(folder: Path, port: int, *options: str) -> list[str]:
    """The command of a new server on ``port``, with its files in ``folder``: ca.pem, key.pem, cert.pem are there."""
    subprocess.run(["cp", "-a", _initialized(), folder / "data"], check=True)
    return [
        "mysqld",
        "--no-defaults",
        *AS_ROOT,
        f"--datadir={folder / 'data'}",
        f"--tmpdir={folder}",
        f"--secure-file-priv={folder}",
        "--socket=s",  # in the data folder: the whole path may be longer than the 107 bytes that Linux takes
        f"--pid-file={folder / 'pid'}",
        f"--port={port}",
        "--bind-address=127.0.0.1",
        "--mysqlx=OFF",
        *(f"--ssl-{part}={folder / part}.pem" for part in ("ca", "key", "cert")),
        # Nothing must survive a crash of the machine, but of the server: the tests kill it.
        "--innodb-flush-log-at-trx-commit=2",
        "--innodb-doublewrite=0",
        *options,
    ]


class RestartableMySQL:
    """A server with a fixed port and its data in ``folder``. ``dsn`` is the administrator's."""

    def __init__(self, server: str, folder: Path) -> None:
        if server == "none":
            no_server("mysql", NO_MYSQL)
        authority = trustme.CA()
        authority.cert_pem.write_to_path(f"{folder / 'ca.pem'}")
        server_certificate = authority.issue_cert("127.0.0.1")
        server_certificate.private_key_pem.write_to_path(f"{folder / 'key.pem'}")
        server_certificate.cert_chain_pems[0].write_to_path(f"{folder / 'cert.pem'}")
        self._log = folder / "log"
        self._port = free_port()
        self._command = command(
            folder,
            self._port,
            # As the provider's servers: see docs/why/provider.md.
            f"--partial-revokes={'OFF' if server == PATTERNS else 'ON'}",
            "--sql-require-primary-key=ON",
            "--log-bin-trust-function-creators=ON",
            "--sql-mode=ANSI_QUOTES,PIPES_AS_CONCAT,ONLY_FULL_GROUP_BY,STRICT_ALL_TABLES",
        )
        self.dsn = f"mysql://root:{quote(PASSWORD, safe='')}@127.0.0.1:{self._port}?ssl-ca={quote(f'{folder}/ca.pem')}"
        self.start("")
        try:
            with self._log_in("") as root:
                root.cursor().execute("ALTER USER root@localhost IDENTIFIED BY %s", [PASSWORD])
        except BaseException:
            self.kill()
            raise

    def start(self, password: str = PASSWORD) -> None:
        """Start it, and wait until it takes the password of root."""
        with self._log.open("w") as log:
            self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=log)
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self._log_in(password).close()
                return
            except pymysql.OperationalError as error:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    self.kill()
                    raise RuntimeError(f"MySQL did not start: {self._log.read_text()[-2000:]}") from error
                time.sleep(0.05)

    def kill(self) -> None:
        """Break all connections at once, as a crash does. A server that is told to stop takes over a second."""
        self._process.kill()
        self._process.wait()

    def _log_in(self, password: str) -> pymysql.Connection[Cursor]:
        return pymysql.connect(host="127.0.0.1", port=self._port, user="root", password=password, autocommit=True)
