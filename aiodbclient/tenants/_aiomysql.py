"""The connections and cursors of aiomysql, without its weaknesses. Needs aiomysql."""

from __future__ import annotations

import ssl
import struct
from typing import Any

import aiomysql  # pyright: ignore[reportMissingTypeStubs]
import pymysql
from pymysql.constants import CLIENT, CR

# What aiomysql raises in addition to its own errors, for example if the server speaks another protocol.
NOT_MYSQL = (OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, struct.error)


class Cursor(aiomysql.Cursor):  # type: ignore[misc]  # aiomysql has no types
    """A cursor that ignores the warnings of the server."""

    async def _show_warnings(self, conn: Any) -> None:
        """Do nothing: aiomysql would raise a Python warning for each note of the server."""


class Connection(aiomysql.Connection):  # type: ignore[misc]  # aiomysql has no types
    """A connection that closes at once, leaks nothing if its login fails, and verifies the server or sends no login."""

    def close(self) -> None:
        """Close the connection at once. aiomysql would first wait for the server, which may hang."""
        if self._writer:
            self._writer.transport.abort()
        super().close()

    async def _request_authentication(self) -> None:
        try:
            context: ssl.SSLContext | None = self._ssl_context
            if context is not None and context.verify_mode and not self.server_capabilities & CLIENT.SSL:
                # aiomysql would log in without TLS
                raise pymysql.OperationalError(CR.CR_SSL_CONNECTION_ERROR, "the server does not support TLS")
            await super()._request_authentication()
        except BaseException:
            self.close()
            raise
