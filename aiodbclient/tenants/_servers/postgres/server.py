"""``PostgresServer``: the steps of ``Server`` on PostgreSQL.

``admin`` has the administrator's sessions and ends who is in their way, ``sessions`` has what one is and how it enters
a database. ``databases`` has a tenant's database and what it lacks, ``logins`` their life. ``leaving`` shuts and drops
a database. ``objects`` knows who owns what, ``strangers`` what others own, also to adopt it. ``scram`` makes and tests
passwords.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC
from functools import partial
from time import monotonic
from typing import Any

from psycopg.sql import SQL, Identifier

from ....engines import Engine
from ....errors import ConflictError, InvalidArgumentError
from ..._credential import Secret
from ..._naming import Names, Role, names_of
from ..._outcomes import Problem
from ..server import Administrator, Found, LoginRefusedError, Server, ServerAwayError, Work, of_tenant
from . import admin, databases, leaving, logins, scram, strangers
from .admin import PAUSE_SECONDS, Admin
from .sessions import ExistsError, Session, entered

_TESTS = 4  # how many logins of tenants to test at a time
_LOGIN_SECONDS = 90.0  # the server ends a connection that does not log in after its authentication_timeout, 60 s
_TEMPORARY_CONNECTIONS = 4

_ADMINISTRATOR = SQL("""
SELECT rolname, current_setting('server_version'), clock_timestamp(),
       rolsuper OR rolcreaterole, rolsuper OR rolcreatedb,
       pg_has_role('pg_signal_backend', 'USAGE'), pg_has_role('pg_read_all_stats', 'USAGE')
FROM pg_roles WHERE rolname = current_user
""")
_RIGHTS = ("CREATEROLE", "CREATEDB", "pg_signal_backend", "pg_read_all_stats")
_OPEN_DATABASES = SQL("""
SELECT datname FROM pg_database WHERE datallowconn AND EXISTS (
    SELECT FROM aclexplode(coalesce(datacl, acldefault('d', datdba))) WHERE grantee = 0 AND privilege_type = 'CONNECT')
ORDER BY datname
""")
_FOUND = SQL("""
SELECT EXISTS (SELECT FROM pg_database WHERE datname = %s AND datconnlimit <> -2),
       ARRAY(SELECT rolname::text FROM pg_roles WHERE rolname = ANY (%s) AND rolcanlogin),
       ARRAY(SELECT rolname::text FROM pg_roles WHERE rolname = ANY (%s) AND NOT rolcanlogin)
""")
# What a process that lost its claim still does: its sessions have the name of the role.
_END_WORK = SQL("""
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE usename = current_user AND application_name = %s AND pid <> pg_backend_pid()
""")
_PRESENT = SQL("SELECT rolname, rolcanlogin FROM pg_roles WHERE rolname = ANY (%s) ORDER BY 1")
_DATABASES = SQL("SELECT datname, pg_get_userbyid(datdba) FROM pg_database WHERE datconnlimit <> -2")
_USAGE = SQL("""
SELECT datname, pg_database_size(d.oid), (SELECT count(*) FROM pg_stat_activity WHERE datid = d.oid)
FROM pg_database d WHERE datname = ANY (%s)
""")


class PostgresServer(Admin, Server):
    """The PostgreSQL of one cluster. See ``Server``."""

    def __init__(self, admin: str, ca: str | None, *, connection_limit: int | None = None) -> None:
        super().__init__(admin, ca)
        self._limit = connection_limit
        self._tests = asyncio.Semaphore(_TESTS)

    # The cluster.

    async def administrator(self) -> Administrator:
        [(name, version, clock, *has)] = await self._ask(_ADMINISTRATOR)
        [(connections,)] = await self._ask(logins.CONNECTIONS)
        lacks = tuple(right for right, there in zip(_RIGHTS, has, strict=True) if not there)
        return Administrator(name, version, lacks, int(connections), clock.astimezone(UTC))

    async def open_databases(self) -> tuple[str, ...]:
        return tuple(name for (name,) in await self._ask(_OPEN_DATABASES))

    async def tenants(self) -> tuple[str, ...]:
        return tuple(sorted(_made(await self._ask(_DATABASES))))

    async def usage(self) -> Mapping[str, tuple[int, int]]:
        made = list(_made(await self._ask(_DATABASES)))
        return {name: (size, open_) for name, size, open_ in await self._ask(_USAGE, made)}

    # Looking at a tenant.

    async def find(self, names: Names) -> Found:
        wanted = list(names.logins)
        [(database, may, ended)] = await self._ask(_FOUND, names.database, wanted, wanted)
        return Found(database, *(tuple(each for each in wanted if each in there) for there in (may, ended)))

    async def why_no_roles(self, names: Names) -> str:
        if not (await self.find(names)).database:
            return ""
        async with entered(partial(self._session, names), names.database) as session:
            return await databases.why_no_roles(session)

    async def log_in(self, names: Names, login: str, password: Secret) -> str | None:
        if self._address is None:
            await self._ask(SQL("SELECT 1"))
        assert self._address is not None
        try:
            async with self._tests:
                await scram.log_in(self._address, login, password, names.database)
                return None
        except LoginRefusedError as refused:
            return str(refused)
        except ServerAwayError as away:
            reason = str(away)
        raise of_tenant(names, f"the login {login!r} could not be tested: {reason}")

    async def problems(self, names: Names, logins: Sequence[str]) -> frozenset[Problem]:
        async def outside(session: Session) -> frozenset[Problem]:
            steps = await databases.lacking(session, logins, self._limit)
            return frozenset(
                {step.problem for step in steps} | {problem for problem, _ in await strangers.found(session)}
            )

        found = await self._read(names, outside)
        if names.role is Role.OWNER or Problem.RIGHTS_MISSING in found:
            return found
        async with self._session(names, names.database) as session:
            return found | {step.problem for step in await databases.lacking_inside(session)}

    # Steps of the verbs.

    async def end_work(self, work: Work) -> None:
        async with self._session(work.names, check=work.check) as session:
            until = monotonic() + admin.ENDING_SECONDS
            while await session.run(_END_WORK, work.names.group) != [(0,)]:
                if monotonic() > until:
                    raise session.error("the sessions of an earlier process do not end: run it again")
                await asyncio.sleep(PAUSE_SECONDS / 10)

    async def create(self, work: Work) -> bool:
        try:
            is_new = await self._step(work, databases.create)
        except ExistsError:  # it was made a moment ago, or is left of a DROP DATABASE that was interrupted
            await self._step(work, leaving.drop_remains)
            is_new = await self._step(work, databases.create)
        if work.names.role is not Role.OWNER:
            await self._mend_inside(work)
        return is_new

    async def set_login(self, work: Work, login: str, password: Secret, *, may_exist: bool = True) -> None:
        names, stored = work.names, await scram.verifier(password)
        existed = may_exist and await self._read(names, partial(logins.exists, role=login))
        if existed:
            await self.end_login(work, login)
            await self.drop_login(work, login)
        await self._wait_for_logins(names, login, existed)
        create = partial(
            logins.create_login, login=login, stored=stored, limit=self._limit, role=names.group, may_exist=may_exist
        )
        with suppress(ExistsError):
            await self._step(work, create)
            return
        raise ConflictError(f"the login {login!r} exists, and was not changed", status=409)

    async def _wait_for_logins(self, names: Names, login: str, existed: bool) -> None:
        """Wait for connections that may still enter with an earlier password of ``login``."""
        begun, until = await self._read(names, partial(logins.begun, existed=existed)), monotonic() + _LOGIN_SECONDS
        while begun:
            if monotonic() > until:
                raise of_tenant(names, f"a connection that began to log in before {login!r} was ended does not end")
            await asyncio.sleep(PAUSE_SECONDS / 10)
            begun &= await self._read(names, partial(logins.begun, existed=True))

    async def end_login(self, work: Work, login: str) -> None:
        until = monotonic() + admin.ENDING_SECONDS
        await self._step(work, partial(logins.end, self._opener(work, turns=False), login=login, until=until))

    async def drop_login(self, work: Work, login: str) -> bool:
        return await logins.drop(self._opener(work), login)

    async def mend(self, work: Work, logins: Sequence[str]) -> None:
        await self._step(work, partial(databases.complete, usernames=logins, limit=self._limit))
        if work.names.role is not Role.OWNER:
            await self._mend_inside(work)
        if left := await strangers.reclaim(self._opener(work)):
            raise of_tenant(
                work.names,
                f"the administrator cannot change all that is others' in the database {work.names.database!r}: "
                f"{'; '.join(left)}: a superuser has to, or the owner of these objects",
            )

    async def _mend_inside(self, work: Work) -> None:
        async with entered(self._opener(work), work.names.database):
            pass
        await self._step(work, databases.complete_inside, work.names.database)

    async def shut(self, work: Work, *, still: bool = False) -> None:
        """See ``Server``. No transaction is ever left."""
        if await self._step(work, leaving.close):
            await self._step(work, partial(leaving.empty, self._opener(work, turns=False)))

    async def adopt(self, work: Work, login: str | None) -> None:
        names = work.names
        await self._read(names, partial(strangers.check_adoption, login=login))
        for other in sorted(names.all_logins - {login}):  # somebody may know its password
            await self.end_login(work, other)
        await self._step(work, partial(strangers.take_database, login=login))
        await strangers.take_objects(self._opener(work), login)

    async def drop_database(self, work: Work) -> None:
        if await self._read(work.names, leaving.is_open):
            await self.shut(work)
        await self._step(work, leaving.drop)

    async def release(self, work: Work) -> None:
        await self.shut(work)
        await self._step(work, leaving.release)
        await self._forget(work, work.names.everything - {work.names.owner})

    async def forget(self, work: Work) -> None:
        names = work.names
        if names.role is not Role.OWNER:
            await self._forget(work, {*names.logins, names.group})
        elif (await self.find(names)).database:
            raise of_tenant(names, f"its database {names.database!r} still exists: run it again")
        else:
            await self._forget(work, names.everything)

    async def _forget(self, work: Work, gone: Collection[str]) -> None:
        for role, enters in await self._ask(_PRESENT, sorted(gone)):
            if enters:
                await self.end_login(work, role)
            await leaving.forget(self._opener(work), role)

    # Moving and dumping.

    async def guests(self, names: Names) -> tuple[str, ...]:
        """See ``Server``: ``CONNECT neighbour``."""
        async with self._session(names) as session:
            database = await databases.need_database(session)
            kept = {database.owner, names.owner, session.admin, *names.everything}
        others = {who: rights for who, rights in database.privileges.items() if who not in kept}
        return tuple(f"{right} {who}" for who, rights in sorted(others.items()) for right in sorted(rights))

    async def unknown(self, names: Names, guests: Sequence[str]) -> tuple[str, ...]:
        everybody = {guest.partition(" ")[2] for guest in guests} - {databases.PUBLIC}
        there = {name for name, _ in await self._ask(_PRESENT, sorted(everybody))}
        return tuple(sorted(everybody - there))

    async def reopen(self, work: Work, guests: Sequence[str]) -> None:
        await self._step(work, partial(databases.give_back, guests=guests))

    async def temporary_login(self, work: Work, password: Secret) -> str:
        """See ``Server``. It is a member of the owner role alone."""
        await self.drop_temporary(work)
        login, owner, stored = work.names.temporary, work.names.owner, await scram.verifier(password)
        create = partial(logins.create_login, login=login, stored=stored, limit=_TEMPORARY_CONNECTIONS, role=owner)
        await self._step(work, create)
        return login

    async def drop_temporary(self, work: Work) -> None:
        await self.end_login(work, work.names.temporary)
        await self.drop_login(work, work.names.temporary)

    async def programs(self, names: Names) -> tuple[str, str]:
        return "", ""

    async def add_extensions(self, work: Work, extensions: Sequence[tuple[str, str]]) -> None:
        async with self._session(work.names, work.names.database, check=work.check) as session:
            schemas = {name for (name,) in await session.run(SQL("SELECT nspname::text FROM pg_namespace"))}
            for name, schema in extensions:
                if schema not in schemas:
                    async with session.acting(work.names.owner):
                        await session.run(SQL("CREATE SCHEMA {}").format(Identifier(schema)))
                create = SQL("CREATE EXTENSION IF NOT EXISTS {} SCHEMA {}")
                async with session.member_of(work.names.owner):
                    await session.run(create.format(Identifier(name), Identifier(schema)))


def _made(databases: Sequence[Any]) -> Iterator[str]:
    """Yield the databases that ``create`` made, of their names and owners."""
    for database, owner in databases:
        with suppress(InvalidArgumentError):
            if names_of(database, Engine.PG).owner == owner:
                yield database
