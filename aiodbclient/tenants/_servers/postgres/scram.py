"""The password of a login on PostgreSQL: its SCRAM verifier, and a test of it without libpq.

A tenant chooses the number of SCRAM's rounds for its own password, and libpq
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
from functools import partial
from operator import xor

from attrs import frozen

from ...._masking import Secret
from ..._libpq import one_line
from ..._naming import Names
from .. import LoginRefusedError, ServerUnreachableError, of_tenant
from .connection import CONNECT_SECONDS

_ROUNDS = 4_096  # PostgreSQL's default
_MOST_ROUNDS = 100_000  # 50 ms of one processor
_PROTOCOL, _SSL_REQUEST = 3 << 16, 80877103
_MOST_BYTES = 100_000  # of one message during a login

_OK, _SASL, _SASL_CONTINUE, _SASL_FINAL = 0, 10, 11, 12
_WRONG_PASSWORD = "28P01"  # of a login that does not exist too

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
                    raise ServerUnreachableError("the server does not speak PostgreSQL's protocol")
                elif context.verify_mode:
                    raise ServerUnreachableError("the server does not support TLS")
                await _Wire(reader, writer).log_in(login, password, names.database)
                writer.write(b"X\0\0\0\4")
            finally:
                writer.transport.abort()
            return None
    except LoginRefusedError as refused:
        return str(refused)
    except ServerUnreachableError as unreachable:
        reason = str(unreachable)
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
        chosen = f"SCRAM-SHA-256\0{struct.pack('!i', len(initial)).decode()}{initial}"
        challenge = (await self._expect(_SASL_CONTINUE, send=chosen))[1].decode()
        fields = {part[:1]: part[2:] for part in challenge.split(",")}
        rounds = int(fields["i"])
        if not 0 < rounds <= _MOST_ROUNDS:
            raise LoginRefusedError(f"its password has {rounds:,} rounds of SCRAM; 1 to {_MOST_ROUNDS:,} are tried")
        if not fields["r"].startswith(nonce):
            raise ServerUnreachableError("the server answered with another nonce")
        salted = await asyncio.to_thread(_salted, password, b64decode(fields["s"]), rounds)
        client, server = _hmac(salted, b"Client Key"), _hmac(salted, b"Server Key")
        final = f"c=biws,r={fields['r']}"
        signed = f"{first},{challenge},{final}".encode()
        proof = bytes(map(xor, client, _hmac(hashlib.sha256(client).digest(), signed)))
        _, content = await self._expect(_SASL_FINAL, send=f"{final},p={b64encode(proof).decode()}")
        if not hmac.compare_digest(b64decode(content.removeprefix(b"v=")), _hmac(server, signed)):
            raise ServerUnreachableError("the server does not know the password's verifier")

    async def _expect(self, *wanted: int, send: str = "") -> tuple[int, bytes]:
        """Send a response, and read a request for an authentication, or its end: which one it is, and its content."""
        if send:
            self.writer.write(b"p" + struct.pack("!i", 4 + len(send.encode())) + send.encode())
        kind, content = await self._message()
        while kind == b"N"[0]:  # a notice
            kind, content = await self._message()
        if kind == b"E"[0]:
            code, text = _read_error(content)
            raise LoginRefusedError(text) if code == _WRONG_PASSWORD else ServerUnreachableError(text)
        if kind != b"R"[0]:
            raise ServerUnreachableError("the server does not speak PostgreSQL's protocol")
        [authentication] = struct.unpack_from("!i", content)
        if authentication not in wanted:
            # Such as MD5, which a session of the login can choose for its own password.
            raise LoginRefusedError(f"the server asks for an authentication ({authentication}) other than SCRAM")
        return authentication, content[4:]

    async def _message(self) -> tuple[int, bytes]:
        """Read a message: its kind, and the beginning of its content."""
        kind, length = struct.unpack("!Bi", await self.reader.readexactly(5))
        return kind, await self.reader.readexactly(min(length - 4, _MOST_BYTES))


def _salted(password: str, salt: bytes, rounds: int) -> bytes:
    """The password as SCRAM hashes it, in a thread. No frame of a task has it in plain text, for its traceback."""
    normalized = unicodedata.normalize("NFKC", password).encode()  # the passwords are ASCII
    return hashlib.pbkdf2_hmac("sha256", normalized, salt, rounds)


def _read_error(content: bytes) -> tuple[str, str]:
    """The SQLSTATE and the text of an error."""
    fields = {part[:1]: part[1:] for part in content.decode(errors="replace").split("\0") if part}
    return fields.get("C", ""), " ".join(fields.get("M", "the server refused the login").split())
