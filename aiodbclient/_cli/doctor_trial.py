"""What ``doctor --try`` does with one throw-away tenant, and what it asks of the API about what SQL made or changed.

The answers are notes: none is wrong. The names in its SQL need no quoting: ``doctor`` made them.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterable, Awaitable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any

from attrs import evolve, frozen

from .. import Cluster, ClusterInfo, Connection
from .._http.raw import JSON
from .._http.waits import until_seen
from .._masking import Secret
from ..clusters import request_below
from ..engines import MYSQL, POSTGRESQL
from ..errors import APIError, DatabaseClientError
from ..tenants import Credential, SQLiteStore, TenantRole, Tenants
from ..tenants._naming import names_of
from ..tenants._servers import BaseTenant, connection_of, server_of
from .doctor_api import REPORT, Trial
from .doctor_checks import Findings, StepFailedError
from .failures import message_of
from .opening import admin_login
from .printing import note, took
from .running import on_signals

_POSTGRESQL = {
    "settings": "SELECT name, setting FROM pg_settings WHERE name IN ('createrole_self_grant', 'max_connections', "
    "'max_prepared_transactions', 'password_encryption')",
    "lock": 'ALTER ROLE "{0}" NOLOGIN',
    "account": "SELECT 'ACCOUNT LOCK' FROM pg_roles WHERE rolname = '{0}' AND NOT rolcanlogin",
    "drop": 'DROP ROLE IF EXISTS "{0}"',
    "create": "CREATE ROLE \"{0}\" LOGIN PASSWORD '{1}'",
    "join": 'GRANT "{0}" TO CURRENT_USER',
    "create database": 'CREATE DATABASE "{0}" TEMPLATE template0',
    "close database": 'REVOKE ALL ON DATABASE "{0}" FROM PUBLIC',
    "drop database": 'DROP DATABASE IF EXISTS "{0}" WITH (FORCE)',
    "own": 'CREATE SCHEMA own AUTHORIZATION "{0}"; SET ROLE "{0}"; CREATE TABLE own.doctor ()',
    "owner": "SELECT pg_get_userbyid(relowner) FROM pg_class WHERE relname = 'doctor'",
}
_MYSQL = {
    "settings": "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('event_scheduler', 'local_infile', 'partial_revokes', "
    "'sql_mode', 'sql_require_primary_key')",
    "lock": "ALTER USER '{0}'@'%%' ACCOUNT LOCK",
    "account": "SHOW CREATE USER '{0}'@'%%'",
    "drop": "DROP USER IF EXISTS '{0}'@'%%'",
    "grants": "SHOW GRANTS FOR '{0}'@'%%'",
}
_KNOWN = ("doadmin", "postgres", "_dodb")  # roles of the provider
_POOL_SECONDS = 10.0  # for which a new pool may not be ready


async def live(findings: Findings, cluster: Cluster, info: ClusterInfo, *, private: bool, admin: str | None) -> None:
    """Prove what can be proved, and remove whatever was made, also after a signal."""
    # On MySQL an underscore in a schema's name is a wildcard of grants, unless the server runs with partial_revokes.
    name = f"doctor-{secrets.token_hex(4)}" + ("_x" if info.engine in MYSQL else "")
    trial, by_sql = Trial(findings, cluster, info.engine, name), info.engine in POSTGRESQL | MYSQL
    with TemporaryDirectory() as folder:
        async with SQLiteStore(Path(folder) / "doctor.db") as store:
            tenants = Tenants(cluster, store, private=private, admin=admin_login(admin)) if by_sql else None
            try:
                with suppress(StepFailedError):  # the tenant may do all the same
                    await trial.prove()
                if tenants is not None:
                    connection = connection_of(info, private=private)
                    ca = await cluster.ca() if connection.ssl else None
                    server = server_of(info.engine, connection, ca, admin_login(admin), None)
                    await _prove(_Asking(trial, server, connection, ca), tenants)
            except StepFailedError:
                pass
            except DatabaseClientError as error:
                findings.fail("--try", error, REPORT)
            finally:
                on_signals(lambda: note(f"wait: what was made for {name} is being removed"))
                await _remove(trial, tenants)


async def _remove(trial: Trial, tenants: Tenants | None) -> None:
    """Remove the tenant and all logins of the trial, and print whether anything is left."""
    error: object = None
    try:
        await trial.await_late()
        if tenants is not None:
            async for outcome in tenants.remove([trial.name]):
                error = outcome.error
        left = await trial.delete_all()
        if left:
            error = f"still there: {', '.join(left)}"
    except DatabaseClientError as ended:
        error = ended
    if error is None:
        trial.findings.ok("removed", f"nothing of {trial.name} is left: the API was asked until nothing was listed")
    else:
        advice = f"Look for {trial.name} with `users list` and `dbs list`, and delete what is left, or drop it by SQL"
        trial.findings.fail("removed", error, advice)


async def _prove(asking: _Asking, tenants: Tenants) -> None:
    """Take a tenant through its life, and ask the API what it sees of it."""
    findings, name, readers = asking.trial.findings, asking.trial.name, tenants.role("reader")
    made = await _step(findings, "created", tenants.provision([name]), name + ", with the login {}")
    await _check(findings, "isolated", tenants, name, "the login has all rights in its database, and others have none")
    await asking.ask("lists", asking.lists(made))
    after = await _step(findings, "rotated", tenants.rotate([name]), "the new login is {}")
    await _check(findings, "both work", tenants, name, f"{made.username} and {after.username} log in")
    await _step(findings, "revoked", tenants.revoke_previous([name]), f"{made.username} has no password that works")
    await _check(findings, "still works", tenants, name, f"{after.username} logs in")
    await _step(findings, "reader", readers.provision([name]), "the login {} only reads")
    await _check(findings, "reader works", readers, name, "it logs in, and has the rights of a reader")
    await asking.ask_all(after)


async def _step(findings: Findings, step: str, run: AsyncIterable[Any], found: str) -> Credential:
    started = monotonic()
    outcome: Any
    with findings.needed(step, {DatabaseClientError: REPORT}):
        [outcome] = [each async for each in run]
    if outcome.error is not None:
        findings.stop(step, outcome.error, REPORT)
    findings.ok(step, f"{found.format(outcome.credential.username)} ({took(monotonic() - started)})")
    credential: Credential = outcome.credential
    return credential


async def _check(findings: Findings, step: str, tenants: TenantRole, name: str, found: str) -> None:
    async for outcome in tenants.check([name]):
        problems = outcome.error if outcome.error is not None else ", ".join(map(str, outcome.problems))
        if problems:
            findings.stop(step, problems, REPORT)
    findings.ok(step, found)


@frozen
class _Asking:
    """Asks about the cluster of a trial."""

    trial: Trial
    server: Any  # its steps and schemas are those of its engine
    connection: Connection
    ca: str | None

    async def ask(self, check: str, question: Awaitable[str]) -> None:
        """Print an answer as a note, since none is wrong."""
        try:
            self.trial.findings.note(check, await question)
        except DatabaseClientError as error:
            self.trial.findings.skip(check, f"there is no answer: {message_of(error)}")

    async def ask_all(self, made: Credential) -> None:
        """Ask what the API does with a tenant's login, ``made``, and with those that SQL made, dropped or locked."""
        logins = dropped, shut, own = [self.trial.login(end) for end in "dso"]
        await self.ask("settings", self._settings())
        try:
            await self.ask("dropped login", self._dropped(dropped))
            await self.ask("locked login", self._shut(shut))
            if self.trial.engine in POSTGRESQL:
                await self.ask("login by SQL", self._deleted(own))
                await self.ask("pool", self._pool(made))
            else:
                await self.ask("rights", self._rights(own))
        finally:
            for login in logins:
                await self._run("drop", login)

    async def lists(self, made: Credential) -> str:
        """Whether the API lists what a tenant has by SQL."""
        users = [user.name for user in await self.trial.cluster.users.list()]
        dbs = [db.name for db in await self.trial.cluster.dbs.list()]
        said = f"of what SQL made, the API lists the login: {_yes(made.username in users)}, "
        if self.trial.engine in POSTGRESQL:
            owner = names_of(made.name, self.trial.engine).owner
            said += f"the role without LOGIN: {_yes(owner in users)}, "
        return said + f"the database: {_yes(made.database in dbs)}"

    async def _settings(self) -> str:
        return ", ".join(f"{name}={setting or 'none'}" for name, setting in sorted(await self._run("settings")))

    async def _dropped(self, login: str) -> str:
        users = self.trial.cluster.users
        await self.trial.create(login)
        await self._run("drop", login)
        read, deleted = await _status(users.get(login)), await _status(users.delete(login))
        return f"after SQL dropped a login of the API, its read {read}, its deletion {deleted}"

    async def _shut(self, login: str) -> str:
        users = self.trial.cluster.users
        await self.trial.create(login)
        await self._run("lock", login)
        read, reset = await _status(users.get(login)), await _status(users.reset_auth(login))
        locked = "locked" if "ACCOUNT LOCK" in str(await self._run("account", login)) else "open"
        return f"after SQL locked a login of the API, its read {read}, its reset {reset}, and it is {locked}"

    async def _rights(self, login: str) -> str:
        await self.trial.create(login)
        grants = [str(grant).partition(" TO ")[0] for (grant,) in await self._run("grants", login)]
        return f"a login of the API has: {'; '.join(grants)}"

    async def _deleted(self, name: str) -> str:
        """What becomes of a login that owns a table, in a database of the same name."""
        from ..tenants._servers.postgres.logins import verifier

        password = Secret(secrets.token_urlsafe())
        try:
            await self._run("create database", name)
            await self._run("close database", name)
            await self._run("create", name, await verifier(password))
            await self._run("join", name)
            await self._run("own", name, inside=name)
            entered = _yes(await self._enters(self.connection, name, password, "template1"))
            deleted = await _status(self.trial.cluster.users.delete(name))
            owners = [owner for (owner,) in await self._run("owner", inside=name)]
        finally:
            await self._run("drop database", name)
        owner = f"belongs to {owners[0] if owners[0] in _KNOWN else 'another role'}" if owners else "is gone"
        owner = "is its own still" if owners == [name] else owner
        return f"it enters template1: {entered}; its deletion by the API {deleted}, and its table {owner}"

    async def _pool(self, made: Credential) -> str:
        name, login, database = self.trial.login("p"), made.username, made.database
        wanted: JSON = {"name": name, "mode": "transaction", "size": 1, "db": database, "user": login}
        try:
            answer = await request_below(self.trial.cluster, "POST", "pools", json=wanted)
            found = answer["pool"]["connection"]
            pool = evolve(self.connection, host=found["host"], port=found["port"])

            async def enters() -> bool | None:
                return await self._enters(pool, login, made.password, name) or None

            takes = "takes" if await until_seen(enters, _POOL_SECONDS) else "does not take"
            return f"a pool of the provider {takes} a login that SQL made"
        finally:
            with suppress(APIError):
                await request_below(self.trial.cluster, "DELETE", "pools", name)

    async def _run(self, what: str, *names: str, inside: str | None = None) -> list[tuple[Any, ...]]:
        """Run a statement as the administrator, on PostgreSQL ``inside`` a database, or raise GrantError."""
        engine = self.trial.engine
        tenant = BaseTenant(names_of(self.trial.name, engine))
        rows: list[tuple[Any, ...]]
        if engine in POSTGRESQL:
            from ..tenants._servers.postgres.sessions import verbatim  # needs psycopg

            async with self.server.steps(tenant).opened(inside) as session:
                rows = await session.run(verbatim(_POSTGRESQL[what].format(*names)))
        else:
            async with self.server.schema(tenant) as schema:
                rows = await schema.run(_MYSQL[what].format(*names))
        return rows

    async def _enters(self, place: Connection, login: str, password: str | None, database: str) -> bool:
        """Whether a login may enter a database of PostgreSQL."""
        import psycopg
        from psycopg.conninfo import make_conninfo

        from ..tenants._servers.postgres.sessions import CAFile, clear

        file = None if self.ca is None else CAFile(self.ca)
        verified = {} if file is None else {"sslmode": "verify-full", "sslrootcert": file.path()}
        options = {"host": place.host, "port": place.port, "user": login, "dbname": database, "connect_timeout": 10}
        own = Secret(make_conninfo("", **options | verified, password=password))
        try:
            await (await psycopg.AsyncConnection.connect(own)).close()
        except psycopg.OperationalError as error:
            clear(error)  # psycopg's frames hold the password
            return False
        return True


async def _status(call: Awaitable[object]) -> str:
    try:
        await call
    except APIError as error:
        return f"is a {error.status}"
    return "is accepted"


def _yes(held: bool) -> str:
    return "yes" if held else "no"
