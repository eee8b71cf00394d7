"""SCRAM on PostgreSQL without libpq: the verifier of a new password, and the test of a password.

The server gets the verifier, so no statement, no log and no ``pg_stat_activity`` has a password.

A tenant chooses the number of rounds of its own password. libpq computes them in the event loop: 2,147,483,647 rounds
take 40 minutes. ``test`` reads the number first, refuses more than ``_MOST_ROUNDS``, and computes them in a thread.
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
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from attrs import frozen

from ...._libpq import one_line
from ..._credential import Secret, verifying_context
from ..server import LoginRefusedError, ServerAwayError
from .sessions import CONNECT_SECONDS

_ROUNDS = 4_096  # PostgreSQL's default
_MOST_ROUNDS = 100_000  # 50 ms of one processor
_PROTOCOL, _SSL_REQUEST = 3 << 16, 80877103
_MOST_BYTES = 100_000  # of one message during a login

_OK, _CLEARTEXT, _MD5, _SASL, _SASL_CONTINUE, _SASL_FINAL = 0, 3, 5, 10, 11, 12


async def verifier(password: Secret) -> Secret:
    """Return what the server stores of ``password``."""
    salt = secrets.token_bytes(16)
    salted = await asyncio.to_thread(_salted, password, salt, _ROUNDS)
    stored = hashlib.sha256(_hmac(salted, b"Client Key")).digest()
    salt64, stored64, server64 = (b64encode(each).decode() for each in (salt, stored, _hmac(salted, b"Server Key")))
    return Secret(f"SCRAM-SHA-256${_ROUNDS}:{salt64}${stored64}:{server64}")


@frozen
class Address:
    """Where the administrator's session found the server."""

    host: str
    port: int
    context: ssl.SSLContext | None


def context_of(options: dict[str, Any]) -> ssl.SSLContext:
    """The TLS context that verifies as much as libpq does with these ``options`` of the administrator."""
    mode, root = str(options.get("sslmode") or ""), str(options.get("sslrootcert") or "~/.postgresql/root.crt")
    if root == "system":
        return ssl.create_default_context()
    if mode.startswith("verify"):
        context = verifying_context(Path(root).expanduser().read_text())
        context.check_hostname = mode == "verify-full"
        return context
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


async def log_in(address: Address, user: str, password: Secret, database: str) -> None:
    """Log in and out. Raises LoginRefusedError or ServerAwayError. A full database is no refusal."""
    try:
        async with asyncio.timeout(CONNECT_SECONDS), _opened(address) as wire:
            await wire.log_in(user, password, database)
            return
    except TimeoutError:
        reason = f"the server did not answer within {CONNECT_SECONDS} s"
    except (OSError, EOFError, ValueError, KeyError, struct.error) as error:
        reason = f"the login failed: {one_line(error)}"
    raise ServerAwayError(reason)


@asynccontextmanager
async def _opened(address: Address) -> AsyncGenerator[_Wire]:
    """Connect, with TLS where the administrator's session has it. Closes the connection at once at the end."""
    if address.host.startswith("/"):  # the folder of a socket
        reader, writer = await asyncio.open_unix_connection(f"{address.host}/.s.PGSQL.{address.port}")
    else:
        reader, writer = await asyncio.open_connection(address.host, address.port)
    try:
        if address.context is not None:
            writer.write(struct.pack("!ii", 8, _SSL_REQUEST))
            if await reader.readexactly(1) != b"S":
                raise ServerAwayError("the server does not support TLS")
            await writer.start_tls(address.context, server_hostname=address.host)
        yield _Wire(reader, writer)
        writer.write(b"X\0\0\0\4")
    finally:
        writer.transport.abort()


class _Wire:
    """The messages of a login. See "Message Formats" in PostgreSQL's manual."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._answered = False  # whether the server got a password

    async def log_in(self, user: str, password: Secret, database: str) -> None:
        # A tenant's settings can make the server send warnings of any length.
        given = ("user", user, "database", database, "options", "-c client_min_messages=error")
        options = b"\0".join(each.encode() for each in given) + b"\0\0"
        self._writer.write(struct.pack("!ii", 8 + len(options), _PROTOCOL) + options)
        kind, content = await self._authentication()
        if kind == _SASL:
            await self._scram(content, password)
            kind, _ = await self._authentication()
        elif kind in {_CLEARTEXT, _MD5}:
            self._send(Secret(_hashed(user, password, content) if kind == _MD5 else f"{password}\0"))
            kind, _ = await self._authentication()
        if kind != _OK:
            raise ServerAwayError(f"the server asks for an authentication ({kind}) that is not supported")
        kind, length = await self._head()
        if kind == b"E"[0]:
            code, text = _read_error(await self._reader.readexactly(min(length, _MOST_BYTES)))
            if code.startswith("28"):  # such as NOLOGIN
                raise LoginRefusedError(text)  # another one, such as a full database, says that the password was right

    async def _scram(self, mechanisms: bytes, password: Secret) -> None:
        if b"SCRAM-SHA-256" not in mechanisms.split(b"\0"):
            raise ServerAwayError("the server asks for a SASL mechanism other than SCRAM-SHA-256")
        nonce = secrets.token_urlsafe(18)
        first = f"n=,r={nonce}"
        initial = f"n,,{first}"
        self._send(f"SCRAM-SHA-256\0{struct.pack('!i', len(initial)).decode()}{initial}")
        self._answered = False
        challenge = (await self._expect(_SASL_CONTINUE)).decode()
        fields = dict(part.split("=", 1) for part in challenge.split(","))
        rounds = int(fields["i"])
        if rounds > _MOST_ROUNDS:
            raise LoginRefusedError(
                f"its password has {rounds:,} rounds of SCRAM, and at most {_MOST_ROUNDS:,} are tried"
            )
        if not fields["r"].startswith(nonce):
            raise ServerAwayError("the server answered with another nonce")
        salted = await asyncio.to_thread(_salted, password, b64decode(fields["s"]), rounds)
        client, server = _hmac(salted, b"Client Key"), _hmac(salted, b"Server Key")
        final = f"c=biws,r={fields['r']}"
        signed = f"{first},{challenge},{final}".encode()
        proof = _hmac(hashlib.sha256(client).digest(), signed)
        proof = bytes(a ^ b for a, b in zip(client, proof, strict=True))
        self._send(f"{final},p={b64encode(proof).decode()}")
        verified = dict(part.split("=", 1) for part in (await self._expect(_SASL_FINAL)).decode().split(","))
        if not hmac.compare_digest(b64decode(verified["v"]), _hmac(server, signed)):
            raise ServerAwayError("the server does not know the password's verifier")

    async def _expect(self, wanted: int) -> bytes:
        kind, content = await self._authentication()
        if kind != wanted:
            raise ServerAwayError(f"the server answered with authentication {kind} instead of {wanted}")
        return content

    async def _authentication(self) -> tuple[int, bytes]:
        kind, content = await self._message()
        while kind == b"N"[0] or kind == b"v"[0]:  # a notice, or older protocol
            kind, content = await self._message()
        if kind == b"E"[0]:
            code, text = _read_error(content)
            raise LoginRefusedError(text) if self._answered and code.startswith("28") else ServerAwayError(text)
        if kind != b"R"[0]:
            raise ServerAwayError("the server does not speak PostgreSQL's protocol")
        return struct.unpack_from("!i", content)[0], content[4:]

    async def _message(self) -> tuple[int, bytes]:
        kind, length = await self._head()
        if length > _MOST_BYTES:
            raise ServerAwayError("the server does not speak PostgreSQL's protocol")
        return kind, await self._reader.readexactly(length)

    async def _head(self) -> tuple[int, int]:
        kind, length = struct.unpack("!Bi", await self._reader.readexactly(5))
        if length < 4:
            raise ServerAwayError("the server does not speak PostgreSQL's protocol")
        return kind, length - 4

    def _send(self, content: str) -> None:
        self._answered = True
        self._writer.write(b"p" + struct.pack("!i", 4 + len(content.encode())) + content.encode())


def _hmac(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, "sha256")


def _salted(password: str, salt: bytes, rounds: int) -> bytes:
    """The password as SCRAM hashes it, in a thread. No frame of a task has it in plain text, for its traceback."""
    normalized = unicodedata.normalize("NFKC", password).encode()  # the passwords are ASCII
    return hashlib.pbkdf2_hmac("sha256", normalized, salt, rounds)


def _hashed(user: str, password: str, salt: bytes) -> str:
    inner = hashlib.md5((password + user).encode(), usedforsecurity=False).hexdigest().encode()
    return f"md5{hashlib.md5(inner + salt, usedforsecurity=False).hexdigest()}\0"


def _read_error(content: bytes) -> tuple[str, str]:
    """The SQLSTATE and the text of an error."""
    fields = {part[:1]: part[1:] for part in content.decode(errors="replace").split("\0") if part}
    return fields.get("C", ""), " ".join(fields.get("M", "the server refused the login").split())
