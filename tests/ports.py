"""Ports for servers that the tests start as programs."""

from __future__ import annotations

import random
import socket
from contextlib import suppress


def free_port() -> int:
    """A port that no connection takes before the server has started. The ports of connections begin at 32768."""
    while True:
        port = random.randrange(16384, 32768)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
