"""Ports for servers that the tests start as programs."""

from __future__ import annotations

import os
import random
import socket
from contextlib import suppress


def free_port() -> int:
    """A port that neither another worker nor a connection, whose ports begin at 32768, takes before the server."""
    first = 16384 + 2048 * (int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % 8)
    while True:
        port = random.randrange(first, first + 2048)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
