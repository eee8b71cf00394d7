"""A server that answers every create and list at once, from memory, so that what is measured is the client.

Run as a program it prints its port and serves until its standard input ends.
"""

from __future__ import annotations

import asyncio
import json
import sys

USER = {"name": "alice", "role": "normal", "password": "AVNS_abcdefgh12345678"}
LISTED = 5000


def answer(status: str, payload: object) -> bytes:
    body = json.dumps(payload).encode()
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        "ratelimit-limit: 5000000\r\nratelimit-remaining: 4999999\r\nratelimit-reset: 1444931833\r\n\r\n"
    )
    return head.encode() + body


# As in the API description's own example, some users have settings and some do not.
SETTINGS = [{}, {"settings": {"pg_allow_replication": False}}]
LIST = answer("200 OK", {"users": [USER | {"name": f"user{n}"} | SETTINGS[n % 2] for n in range(LISTED)]})
CLUSTER = {"name": "main", "engine": "pg"}


class Answering(asyncio.Protocol):
    def __init__(self) -> None:
        self.received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data
        while (end := self.received.find(b"\r\n\r\n")) >= 0:
            head = self.received[:end].lower()
            _, _, rest = head.partition(b"content-length:")
            size = end + 4 + int(rest.partition(b"\r\n")[0] or 0)
            if len(self.received) < size:
                return
            body, self.received = self.received[end + 4 : size], self.received[size:]
            path = head.split(b" ", 2)[1].partition(b"?")[0].decode()
            if head.startswith(b"post"):
                self.transport.write(answer("201 Created", {"user": USER | {"name": json.loads(body)["name"]}}))
            elif path.endswith("/users"):
                self.transport.write(LIST)
            else:
                self.transport.write(answer("200 OK", {"database": CLUSTER | {"id": path.rpartition("/")[2]}}))


async def main() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Answering, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
