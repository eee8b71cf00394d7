"""A server that answers every create and list at once, from memory, so that benchmarks measure only the client.

As a program, it prints its port and serves until its standard input ends.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

USER = {"name": "alice", "role": "normal", "password": "AVNS_abcdefgh12345678"}
LISTED = 5000


def answer(status: str, payload: object) -> bytes:
    body = json.dumps(payload).encode()
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        "ratelimit-limit: 5000000\r\nratelimit-remaining: 4999999\r\nratelimit-reset: 1444931833\r\n\r\n"
    )
    return head.encode() + body


PEM = "-----BEGIN CERTIFICATE-----\n" + f"{'MIIEFTCCAn2gAwIB' * 4}\n" * 20 + "-----END CERTIFICATE-----\n"
ACL = [{"id": "aaa", "permission": "consume", "topic": "customer-events"}]
# The fields of a user besides name, role and password, as in the API description's examples. Keyed by the last digit of
# the cluster's id.
MEMBERS: dict[str, list[dict[str, Any]]] = {
    "0": [{}, {"settings": {"pg_allow_replication": False}}],
    "1": [{"settings": {"pg_allow_replication": False}}],
    "2": [{"mysql_settings": {"auth_plugin": "caching_sha2_password"}}],
    "3": [{"password": "", "settings": {"mongo_user_settings": {"databases": ["alpha"], "role": "readWrite"}}}],
    "4": [{"access_cert": PEM, "access_key": PEM, "settings": {"acl": ACL}}],
    "5": [{"settings": {"opensearch_acl": [{"index": "alpha.*", "permission": "read"}]}}],
}
LISTS = {
    digit: answer("200 OK", {"users": [USER | {"name": f"user{n}"} | of[n % len(of)] for n in range(LISTED)]})
    for digit, of in MEMBERS.items()
}
NOT_FOUND = answer("404 Not Found", {"id": "not_found", "message": "user not found", "request_id": "4d9d8375-3c56"})
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
                self.transport.write(LISTS.get(path[-len("0/users")], LISTS["0"]))
            elif path.endswith("/users/alice"):
                self.transport.write(answer("200 OK", {"user": USER}))
            elif path.endswith("/users/nobody"):
                self.transport.write(NOT_FOUND)
            else:
                self.transport.write(answer("200 OK", {"database": CLUSTER | {"id": path.rpartition("/")[2]}}))


async def main() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Answering, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
