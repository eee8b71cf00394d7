"""The logins of a tenant on PostgreSQL: create, end and test them.

Each login is new, and an ended one stays so: it has no membership and no CONNECT, NOLOGIN, no password, and no session.
In this order, so that a prepared transaction that locks the row of the login leaves it without rights. The server looks
at NOLOGIN after the password, so a connection that began to log in before gains nothing.

The server gets the verifier of a new password, so no statement, no log and no ``pg_stat_activity`` has the password.

``log_in`` tests a password without libpq. A tenant chooses the number of SCRAM's rounds for its own password, and libpq
computes them in the event loop, where nothing can stop it: 2,147,483,647 rounds take 40 minutes. ``log_in`` reads the
number first, refuses more than ``_MOST_ROUNDS``, and computes them in a thread. It knows no other authentication: the
verifiers of logins are computed here.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
import ssl
import struct
import unicodedata
from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from functools import partial
from operator import xor
from time import monotonic
from typing import TypeAlias

from attrs import frozen
from psycopg.sql import SQL, Identifier, Literal

from ...._masking import Secret
from ..._libpq import one_line
from ..._naming import Names, Role
from ...errors import GrantError
from .. import TEMPORARY_CONNECTIONS, LoginRefusedError, ServerAwayError, of_tenant
from .grants import (
    ALL,
    CONNECT,
    grant_membership,
    grant_on_database,
    limit_of,
    read_database,
    revoke_membership,
    start_as_owner,
)
from .sessions import CONNECT_SECONDS, BlockedError, ExistsError, Session, Statement, end_all, end_opening

_END_STALE_SECONDS = 30.0
_LOCK_MILLISECONDS = 200  # for a lock, before the end of a login ends the sessions of this login
_ROUNDS = 4_096  # PostgreSQL's default
_MOST_ROUNDS = 100_000  # 50 ms of one processor
_PROTOCOL, _SSL_REQUEST = 3 << 16, 80877103
_MOST_BYTES = 100_000  # of one message during a login

_OK, _SASL, _SASL_CONTINUE, _SASL_FINAL = 0, 10, 11, 12
_WRONG_PASSWORD = "28P01"  # of a login that does not exist too

PRESENT = SQL("SELECT rolname FROM pg_roles WHERE rolname = ANY (%s) ORDER BY 1")
_END_SESSIONS = SQL("""
WITH found AS MATERIALIZED (
    SELECT pid, usename FROM pg_stat_activity WHERE usename = ANY (%s) AND pid <> pg_backend_pid())
SELECT pid, usename FROM found, pg_terminate_backend(pid)
""")
# What a process that lost its claim still does: its sessions have the name of the owner role.
_END_STALE = SQL("""
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE usename = current_user AND application_name = %s AND pid <> pg_backend_pid()
""")
# The administrator keeps ADMIN, which it needs.
MEMBERSHIPS = SQL("""
SELECT pg_get_userbyid(roleid), pg_get_userbyid(member), pg_get_userbyid(grantor)
FROM pg_auth_members, pg_roles me WHERE rolname = ANY (%s) AND (member = me.oid OR roleid = me.oid AND NOT admin_option)
""")
_BRIEFLY = SQL("SET LOCAL lock_timeout = {}").format(Literal(_LOCK_MILLISECONDS))
_Change: TypeAlias = Callable[[], Awaitable[None]]


async def end_stale_sessions(session: Session) -> None:
    """End the sessions of an earlier process, which has the same names for them."""
    if await end_all(partial(session.run, _END_STALE, session.names.owner), monotonic() + _END_STALE_SECONDS):
        raise session.error("the sessions of an earlier process do not end: run it again")


async def create_login(session: Session, login: str, stored: Secret, role: Role, *, dumps: bool = False) -> None:
    """Create a login as a member of its role, and open a database that was shut. One that ``dumps`` it inherits."""
    names, inherits = session.names, dumps or role is not Role.OWNER
    inherit = SQL("INHERIT" if inherits else "NOINHERIT")
    create = SQL("CREATE ROLE {} LOGIN {} CONNECTION LIMIT {} PASSWORD {}")
    most = Literal(TEMPORARY_CONNECTIONS if dumps else await limit_of(session))
    statements: list[Statement] = [create.format(Identifier(login), inherit, most, Literal(stored))]
    if not inherits:
        # First, because a change of memberships makes the server look at all of them for the next statement.
        statements.append(start_as_owner(session, login))
    is_owner = role is Role.OWNER
    group = names.owner if is_owner else names.group(role)
    statements.append(grant_membership(session, group, login, inherits, is_owner))
    if is_owner:  # other groups have CONNECT. The first grant opens the database of a tenant that was suspended
        statements += [grant_on_database(session, names.owner, ALL), grant_on_database(session, login, CONNECT)]
    # A server without the options of memberships wants the administrator to be a member, for ``SET role``.
    joins = [] if session.knows_options or inherits else [names.owner]
    try:
        await session.run_with(joins, *statements)
    except ExistsError:  # no other try would make it
        raise session.error(f"the login {login!r} exists already: run it again") from None


async def end(session: Session, logins: Collection[str], until: float) -> None:
    """End logins: nobody can enter as one of them, or act as it."""
    present = [login for (login,) in await session.run(PRESENT, sorted(logins))]
    ours = {session.names.owner, *session.names.groups}
    # Of all, before it waits for a session: one can resist ``pg_terminate_backend``.
    await revoke_memberships(session, await session.run(MEMBERSHIPS, present), ours)
    lock = SQL("ALTER ROLE {} NOLOGIN PASSWORD NULL")
    changes: list[_Change] = [
        partial(_revoke_connect, session, present),
        *(partial(session.run_all, _BRIEFLY, lock.format(Identifier(login))) for login in present),
    ]
    while True:
        blocked = dict[_Change, BlockedError]()
        for change in changes:
            try:
                await change()
            except BlockedError as error:
                blocked[change] = error
        if not blocked or monotonic() > until:
            break
        await session.run(_END_SESSIONS, present)  # they hold the rows
        changes = [*blocked]
    await end_opening(session)
    if left := await end_all(partial(session.run, _END_SESSIONS, present), until):
        named = ", ".join(f"{pid} of {login!r}" for pid, login in left)
        raise session.error(
            f"sessions do not end, though their logins may no longer enter: process {named}; the server ends them "
            "when their statement does: run it again"
        )
    for blocking in blocked.values():
        raise blocking


async def revoke_memberships(
    session: Session, memberships: Iterable[tuple[str, str, str]], ours: Collection[str] = ()
) -> None:
    """Revoke memberships: all in roles that are ``ours``, and those in others that the administrator may revoke."""
    for role, member, grantor in memberships:
        try:
            await session.run(revoke_membership(session, role, member, grantor))
        except GrantError:
            if role in ours:
                raise


async def _revoke_connect(session: Session, logins: Sequence[str]) -> None:
    database = await read_database(session)
    if database is None or database.owner != session.admin:
        return
    if connecting := [Identifier(login) for login in logins if login in database.privileges]:
        revoke, of = SQL("REVOKE ALL ON DATABASE {} FROM {} CASCADE"), SQL(", ").join(connecting)
        await session.run_all(_BRIEFLY, revoke.format(Identifier(session.names.database), of))


# The test of a password.

_hmac = partial(hmac.digest, digest="sha256")


async def verifier(password: Secret) -> Secret:
    """Return what the server stores of ``password``."""
    salt = secrets.token_bytes(16)
    salted = await asyncio.to_thread(_salted, password, salt, _ROUNDS)
    stored = hashlib.sha256(_hmac(salted, b"Client Key")).digest()
    salt64, stored64, server64 = [b64encode(each).decode() for each in (salt, stored, _hmac(salted, b"Server Key"))]
    return Secret(f"SCRAM-SHA-256${_ROUNDS}:{salt64}${stored64}:{server64}")


def unverified_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


async def log_in(
    address: tuple[str, int], context: ssl.SSLContext, names: Names, login: str, password: Secret
) -> str | None:
    """Log in and out. Return why the server refuses it, or None. A full database is no refusal."""
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            reader, writer = await asyncio.open_connection(*address)
            try:
                writer.write(struct.pack("!ii", 8, _SSL_REQUEST))
                answer = await reader.read(2)
                if answer == b"S":
                    await writer.start_tls(context, server_hostname=address[0])
                elif not answer:
                    raise EOFError("the server closed the connection")
                elif answer != b"N":  # what else came would be read as if TLS protected it
                    raise ServerAwayError("the server does not speak PostgreSQL's protocol")
                elif context.verify_mode:
                    raise ServerAwayError("the server does not support TLS")
                await _Wire(reader, writer).log_in(login, password, names.database)
                writer.write(b"X\0\0\0\4")
            finally:
                writer.transport.abort()
            return None
    except LoginRefusedError as refused:
        return str(refused)
    except ServerAwayError as away:
        reason = str(away)
    except TimeoutError:
        reason = f"the server did not answer within {CONNECT_SECONDS} s"
    except (OSError, EOFError, ValueError, KeyError, struct.error) as error:
        reason = f"the connection failed: {one_line(error)}"
    raise of_tenant(names, f"the login {login!r} could not be tested: {reason}")


@frozen
class _Wire:
    """A connection that logs in. See "Frontend/Backend Protocol" in PostgreSQL's manual."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def log_in(self, user: str, password: Secret, database: str) -> None:
        # A tenant's settings can make the server send warnings of any length.
        given = ("user", user, "database", database, "options", "-c client_min_messages=error")
        options = "\0".join(given).encode() + b"\0\0"
        self.writer.write(struct.pack("!ii", 8 + len(options), _PROTOCOL) + options)
        kind, _ = await self._expect(_OK, _SASL)
        if kind == _SASL:
            await self._scram(password)
            await self._expect(_OK)
        kind, content = await self._message()
        if kind == b"E"[0]:
            code, text = _read_error(content)
            if code.startswith("28"):  # such as NOLOGIN
                raise LoginRefusedError(text)  # another one, such as a full database, says that the password was right

    async def _scram(self, password: Secret) -> None:
        nonce = secrets.token_urlsafe(18)
        first = f"n=,r={nonce}"
        initial = f"n,,{first}"
        self._send(f"SCRAM-SHA-256\0{struct.pack('!i', len(initial)).decode()}{initial}")
        challenge = (await self._expect(_SASL_CONTINUE))[1].decode()
        fields = {part[:1]: part[2:] for part in challenge.split(",")}
        rounds = int(fields["i"])
        if not 0 < rounds <= _MOST_ROUNDS:
            raise LoginRefusedError(f"its password has {rounds:,} rounds of SCRAM; 1 to {_MOST_ROUNDS:,} are tried")
        if not fields["r"].startswith(nonce):
            raise ServerAwayError("the server answered with another nonce")
        salted = await asyncio.to_thread(_salted, password, b64decode(fields["s"]), rounds)
        client, server = _hmac(salted, b"Client Key"), _hmac(salted, b"Server Key")
        final = f"c=biws,r={fields['r']}"
        signed = f"{first},{challenge},{final}".encode()
        proof = bytes(map(xor, client, _hmac(hashlib.sha256(client).digest(), signed)))
        self._send(f"{final},p={b64encode(proof).decode()}")
        _, content = await self._expect(_SASL_FINAL)
        if not hmac.compare_digest(b64decode(content.removeprefix(b"v=")), _hmac(server, signed)):
            raise ServerAwayError("the server does not know the password's verifier")

    async def _expect(self, *wanted: int) -> tuple[int, bytes]:
        """Read a request for an authentication, or its end: which one it is, and its content."""
        kind, content = await self._message()
        while kind == b"N"[0]:  # a notice
            kind, content = await self._message()
        if kind == b"E"[0]:
            code, text = _read_error(content)
            raise LoginRefusedError(text) if code == _WRONG_PASSWORD else ServerAwayError(text)
        if kind != b"R"[0]:
            raise ServerAwayError("the server does not speak PostgreSQL's protocol")
        [authentication] = struct.unpack_from("!i", content)
        if authentication not in wanted:
            # Such as MD5, which a session of the login can choose for its own password.
            raise LoginRefusedError(f"the server asks for an authentication ({authentication}) other than SCRAM")
        return authentication, content[4:]

    async def _message(self) -> tuple[int, bytes]:
        """Read a message: its kind, and the beginning of its content."""
        kind, length = struct.unpack("!Bi", await self.reader.readexactly(5))
        return kind, await self.reader.readexactly(min(length - 4, _MOST_BYTES))

    def _send(self, content: str) -> None:
        self.writer.write(b"p" + struct.pack("!i", 4 + len(content.encode())) + content.encode())


def _salted(password: str, salt: bytes, rounds: int) -> bytes:
    """The password as SCRAM hashes it, in a thread. No frame of a task has it in plain text, for its traceback."""
    normalized = unicodedata.normalize("NFKC", password).encode()  # the passwords are ASCII
    return hashlib.pbkdf2_hmac("sha256", normalized, salt, rounds)


def _read_error(content: bytes) -> tuple[str, str]:
    """The SQLSTATE and the text of an error."""
    fields = {part[:1]: part[1:] for part in content.decode(errors="replace").split("\0") if part}
    return fields.get("C", ""), " ".join(fields.get("M", "the server refused the login").split())
