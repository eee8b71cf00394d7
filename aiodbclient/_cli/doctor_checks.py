"""What ``doctor`` looks at, without changing anything."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from .. import Cluster, ClusterClient, Connection, DatabaseClient, RateBudget
from ..engines import CAPABILITIES, MYSQL, POSTGRESQL
from ..errors import (
    AuthenticationError,
    ConfigurationError,
    DatabaseClientError,
    GrantError,
    InvalidArgumentError,
    PermissionDeniedError,
    StoreError,
    UnsupportedOperationError,
)
from ..tenants._credential import verifying_context
from ..tenants._grants import sql_grants
from ..tenants._site import connection_of
from .opening import AnyBudget
from .output import printable, stdout_console, write
from .stores import KEY_VARIABLE, has_no_folder, is_missing, keys, open_store

_CONNECT_SECONDS = 10.0
_SKEW = 30.0  # s between two clocks that nobody needs to hear of


class Findings:
    """Prints a line for each check as soon as it is done.

    Args:
        as_json: Whether each line is a JSON object.

    Attributes:
        failed: How many checks failed.
    """

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self.failed = 0

    def ok(self, check: str, found: str) -> None:
        """Print that a check found nothing wrong."""
        self._print("ok", check, found, "", "green")

    def fail(self, check: str, found: object, advice: str) -> None:
        """Print what is wrong, and what to do about it."""
        self.failed += 1
        self._print("FAIL", check, str(found), advice, "red")

    def skip(self, check: str, why: str) -> None:
        """Print that a check was not made."""
        self._print("skip", check, why, "", "yellow")

    def _print(self, result: str, check: str, found: str, advice: str, style: str) -> None:
        if self._as_json:
            members = {"check": check, "result": result.lower(), "found": found} | ({"do": advice} if advice else {})
            write(f"{json.dumps(members)}\n")
            return
        console = stdout_console()
        with console.capture() as captured:
            console.print(f"{result:<4}", style=style, end="")
            console.print(f"  {check}: {printable(found)}{f'. {advice}' if advice else ''}", soft_wrap=True)
        write(captured.get())


async def check_store(findings: Findings, where: str, cluster_id: str) -> None:
    """Whether the store can be opened, its key fits, and its tenants are those of the cluster. None is made."""
    try:
        encrypted = "encrypted" if keys() else f"not encrypted: set ${KEY_VARIABLE} to encrypt a new one"
    except (InvalidArgumentError, ConfigurationError) as error:
        findings.fail("store", error, f"set ${KEY_VARIABLE} to what `aiodbclient store keygen` prints")
        return
    if has_no_folder(where):
        findings.fail("store", f"the folder of {where} does not exist", "create it, or use another --store")
        return
    if is_missing(where):
        findings.ok("store", f"{where} does not exist yet and will be created, {encrypted}")
        return
    try:
        async with open_store(where) as store:
            found = [record.current.cluster if record.current else None async for record in store.records()]
    except (StoreError, ConfigurationError) as error:
        findings.fail("store", error, f"check --store and ${KEY_VARIABLE}")
    else:
        if others := {each for each in found if each is not None} - {cluster_id}:
            findings.fail(
                "store", f"{where} has tenants of the cluster {min(others)}", "Give each cluster its own store"
            )
        else:
            findings.ok("store", f"{where} can be read, {len(found)} records, {encrypted}")


async def check_budget(findings: Findings, budget: AnyBudget) -> bool:
    """Whether the rate limit is shared, where that is wanted. Returns whether requests can be sent."""
    if isinstance(budget, RateBudget):
        return True
    try:
        await budget.acquire()
    except ConfigurationError as error:
        findings.fail("budget", error, "Check --budget")
        return False
    budget.release(sent=False)
    if budget.is_shared:
        findings.ok("budget", "shared, and its server answers")
    else:
        findings.fail("budget", "its server does not answer", "Check --budget and the network")
    return True


async def check_token(findings: Findings, client: DatabaseClient) -> bool:
    """Whether the API takes the token."""
    try:
        await client.clusters.list()
    except AuthenticationError as error:
        findings.fail("token", error, "Make a new one in the control panel under API, and set DIGITALOCEAN_TOKEN")
    except PermissionDeniedError as error:
        findings.fail("token", error, "Give the token the scope database:read")
    except DatabaseClientError as error:
        findings.fail("API", error, "Check the network, the proxy (HTTPS_PROXY) and DIGITALOCEAN_API_URL")
    else:
        findings.ok("token", "accepted, and has the scope database:read")
        return True
    return False


async def check_cluster(
    findings: Findings, cluster: ClusterClient, *, private: bool, admin: str | None
) -> Cluster | None:
    """Whether the cluster is online and can have tenants, and what the token may read of it. None if not."""
    info = await cluster.info()
    known = CAPABILITIES.get(info.engine)
    if known is None or not known.tenants:
        findings.fail(
            "cluster", f"{info.name} is a {info.engine}", "This engine can have no tenants: use another cluster"
        )
        return None
    if info.status != "online":
        findings.fail("cluster", f"{info.name} is not online, its status is {info.status}", "Wait until it is online")
        return None
    findings.ok("cluster", f"{info.name} is online, {info.engine} {info.version}")
    reads: tuple[tuple[str, Callable[[], Awaitable[object]]], ...] = (
        ("users", cluster.users.list),
        ("databases", cluster.dbs.list),
    )
    for what, read in reads:
        if what == "databases" and not known.dbs:
            continue
        try:
            await read()
        except PermissionDeniedError as error:
            findings.fail(what, error, "Give the token the scope database:read")
        except DatabaseClientError as error:
            findings.fail(what, error, "Try again later")
        else:
            findings.ok(what, "can be listed")
    try:
        connection = connection_of(info, private=private)
    except ConfigurationError as error:
        findings.fail("connection", error, "")
        return None
    if known.returns_passwords and connection.password is None:
        if admin is None and info.engine in POSTGRESQL | MYSQL:
            findings.fail(
                "passwords",
                "the API does not return them to this token",
                "Give it the scope database:view_credentials, or pass --admin, the DSN of an administrator",
            )
        else:
            findings.skip("passwords", "the API does not return them to this token, and need not")
    elif known.returns_passwords:
        findings.ok("passwords", "are returned: the token has the scope database:view_credentials")
    return info


async def check_servers(
    findings: Findings, cluster: ClusterClient, info: Cluster, *, private: bool, admin: str | None
) -> None:
    """Whether the database server can be reached and verified, and what the administrator may do there."""
    connection = connection_of(info, private=private)
    if not await _check_port(findings, connection):
        return
    ca = await _check_ca(findings, cluster) if connection.ssl else None
    if connection.ssl and ca is None:
        return
    if not connection.ssl:
        findings.ok("TLS", "the cluster speaks none")
    try:
        sql = sql_grants(info.engine, connection, ca, admin, None)
    except (ConfigurationError, UnsupportedOperationError) as error:
        findings.fail("administrator", error, "Set AIODBCLIENT_ADMIN to the DSN of an administrator")
        return
    if sql is None:
        if ca is not None:
            await _check_tls(findings, connection, ca)
        findings.ok("rights", f"on {info.engine} the API grants them: no administrator is needed")
        return
    try:
        found = await sql.administrator()
    except GrantError as error:
        findings.fail("administrator", error, "Check the password and the cluster's trusted sources")
        return
    if ca is not None:
        findings.ok("TLS", "the server's certificate and name are verified by the cluster's CA")
    if found.lacks:
        findings.fail(
            "administrator", f"{found.name} lacks {', '.join(found.lacks)}", "Use doadmin, or grant it what it lacks"
        )
    else:
        findings.ok("administrator", f"{found.name} logs in to {found.server}, and may create roles and grant rights")
    skew = abs((datetime.now(UTC) - found.clock).total_seconds())
    if skew > _SKEW:
        findings.fail("clock", f"it differs from the server's by {skew:.0f} s", "Set it by NTP: it measures ages")
    else:
        findings.ok("clock", "is that of the server")


async def _check_port(findings: Findings, connection: Connection) -> bool:
    address = f"{connection.host}:{connection.port}"
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            _, writer = await asyncio.open_connection(connection.host, connection.port)
        writer.close()
    except (OSError, TimeoutError) as error:
        reason = getattr(error, "strerror", None) or "it does not answer"
        findings.fail(
            "connection",
            f"{address} cannot be reached: {reason}",
            "Add this machine to the cluster's trusted sources; --private needs a machine in its VPC",
        )
        return False
    findings.ok("connection", f"{address} can be reached")
    return True


async def _check_ca(findings: Findings, cluster: ClusterClient) -> str | None:
    try:
        ca = await cluster.ca()
        verifying_context(ca)
    except (DatabaseClientError, ssl.SSLError) as error:
        findings.fail("CA", error, "Without it no server can be verified: ask the provider's support")
        return None
    findings.ok("CA", "can be read")
    return ca


async def _check_tls(findings: Findings, connection: Connection, ca: str) -> None:
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            _, writer = await asyncio.open_connection(connection.host, connection.port, ssl=verifying_context(ca))
        writer.close()
    except (OSError, TimeoutError) as error:
        findings.fail("TLS", f"the server cannot be verified: {error}", "Ask the provider's support for the right CA")
    else:
        findings.ok("TLS", "the server's certificate and name are verified by the cluster's CA")
