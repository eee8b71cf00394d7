"""Other machines and containers reach the sandbox."""

from __future__ import annotations

import re
import socket
from contextlib import nullcontext
from pathlib import Path

import psycopg
import pytest

from aiodbclient.sandbox import Sandbox

from .conftest import caller
from .test_program import get, program


async def test_only_names_that_were_allowed_are_answered() -> None:
    async with Sandbox(windows=[], bind="0.0.0.0", allow_hosts=["Sandbox", "db.internal"]) as sandbox:
        assert sandbox.url.startswith("http://127.0.0.1:")
        async with caller(sandbox) as call:
            for host, status in (
                ("sandbox", 200),
                ("SANDBOX:80", 200),
                ("db.internal", 200),
                ("localhost", 200),
                ("evil.example", 421),
                ("sandbox.evil.example", 421),
                ("10.0.0.1", 421),
            ):
                answer = await call("GET", "/v2/databases", headers={"host": host})
                assert answer.status == status, host
        assert "db.internal" in answer.json["message"]


async def test_databases_are_reached_by_the_name_and_have_it_in_their_certificate(tmp_path: Path) -> None:
    async with Sandbox(windows=[], bind="0.0.0.0", allow_hosts=["sandbox"]) as sandbox, caller(sandbox) as call:
        cluster = f"/v2/databases/{await sandbox.add_cluster('pg', backend='postgres')}"
        connection = (await call("GET", cluster)).json["database"]["connection"]
        assert connection["host"] == "sandbox"
        assert "@sandbox:" in connection["uri"]
        ca = tmp_path / "ca.pem"
        [own] = sandbox._clusters.values()
        ca.write_text(own.backend.ca() or "")
        for address in {"127.0.0.1", own_address()}:  # as if the name resolved to it
            async with await psycopg.AsyncConnection.connect(
                connection["uri"], hostaddr=address, sslmode="verify-full", sslrootcert=str(ca)
            ) as session:
                assert session.info.hostaddr == address


def own_address() -> str:
    """The address of this machine for other machines, if it has one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


async def test_by_default_it_is_reached_from_this_machine_alone() -> None:
    for bind, others in (("127.0.0.1", False), ("0.0.0.0", True)):
        async with Sandbox(bind=bind) as sandbox:
            port = int(sandbox.url.rpartition(":")[2])
            with nullcontext() if others else pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.2", port)).close()


@pytest.mark.parametrize(("bind", "hosts"), [("localhost", []), ("::1", []), ("0.0.0.0", ["a b"]), ("0.0.0.0", [""])])
def test_invalid_addresses_and_hosts_are_refused(bind: str, hosts: list[str]) -> None:
    with pytest.raises(ValueError, match=r"must be an IPv4 address|is not a host name"):
        Sandbox(bind=bind, allow_hosts=hosts)


def test_the_printed_text_can_be_pasted_into_a_shell() -> None:
    arguments = ["--cluster", "redis: region=ams3 tags=a", "--cluster", "kafka", "--bind", "0.0.0.0"]
    with program(*arguments, "--allow-host", "sandbox", "--token", "mine") as process:
        assert process.stdout is not None
        printed = ""
        while "Ctrl-C" not in printed:
            printed += process.stdout.readline()
        exported = dict(re.findall(r"export (\w+)=(\S+)", printed))
        of_the_api = [f"DIGITALOCEAN_{name}" for name in ("API_URL", "TOKEN", "CLUSTER_ID")]
        assert list(exported) == [*of_the_api, "AIODBCLIENT_CLUSTER"]
        assert exported["AIODBCLIENT_CLUSTER"] == "redis-1"
        url, cluster = exported["DIGITALOCEAN_API_URL"], exported["DIGITALOCEAN_CLUSTER_ID"]
        shown = get(f"{url}/v2/databases/{cluster}", "mine")["database"]
        assert (shown["engine"], shown["region"], shown["tags"]) == ("redis", "ams3", ["a"])
