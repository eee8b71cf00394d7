"""Other machines and containers reach the sandbox."""

from __future__ import annotations

import re
import socket
from contextlib import nullcontext

import psycopg
import pytest

from aiodbclient.sandbox import Sandbox

from .conftest import caller
from .test_program import get, program


async def test_database_host_is_the_requests() -> None:
    """The API names the database's host as the client knows this machine, so that containers reach it."""
    async with Sandbox(windows=[], bind="0.0.0.0") as sandbox, caller(sandbox) as call:
        cluster = f"/v2/databases/{await sandbox.add_cluster('pg', backend='postgres')}"
        shown = (await call("GET", cluster, headers={"host": "sandbox:8080"})).json["database"]["connection"]
        assert shown["host"] == "sandbox"
        for address in {"127.0.0.1", own_address()}:  # as if the name resolved to it
            async with await psycopg.AsyncConnection.connect(shown["uri"], hostaddr=address) as session:
                assert session.info.hostaddr == address


def own_address() -> str:
    """The address of this machine for other machines, if it has one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


async def test_default_bind_is_this_machine() -> None:
    for bind, others in (("127.0.0.1", False), ("0.0.0.0", True)):
        async with Sandbox(bind=bind) as sandbox:
            port = int(sandbox.url.rpartition(":")[2])
            with nullcontext() if others else pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.2", port)).close()


@pytest.mark.parametrize("bind", ["localhost", "::1", ""])
def test_invalid_addresses_are_refused(bind: str) -> None:
    with pytest.raises(ValueError, match="must be an IPv4 address"):
        Sandbox(bind=bind)


def test_printed_text_is_for_a_shell() -> None:
    arguments = ["--cluster", "redis: tags=a", "--cluster", "kafka", "--bind", "0.0.0.0"]
    with program(*arguments, "--token", "mine", "--rate-limit", "none") as process:
        assert process.stdout is not None
        printed = ""
        while "Ctrl-C" not in printed:
            printed += process.stdout.readline()
        assert printed.endswith("\nCtrl-C stops it and deletes its data.\n")
        exported = dict(re.findall(r"export (\w+)=(\S+)", printed))
        of_the_api = [f"DIGITALOCEAN_{name}" for name in ("API_URL", "TOKEN", "CLUSTER_ID")]
        assert list(exported) == [*of_the_api, "AIODBCLIENT_CLUSTER", "AIODBCLIENT_BUDGET"]
        assert (exported["AIODBCLIENT_CLUSTER"], exported["AIODBCLIENT_BUDGET"]) == ("redis-1", "none")
        assert printed.count("(no database server: it answers the API alone)") == 2
        url, cluster = exported["DIGITALOCEAN_API_URL"], exported["DIGITALOCEAN_CLUSTER_ID"]
        shown = get(f"{url}/v2/databases/{cluster}", "mine")["database"]
        assert (shown["engine"], shown["tags"]) == ("redis", ["a"])
