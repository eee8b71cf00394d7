"""What ``doctor`` looks at, and the line that it prints for each check."""

from __future__ import annotations

import re
import ssl
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import NoReturn

from attrs import define

from ... import Cluster, ClusterInfo, DatabaseClient
from ...engines import CAPABILITIES, MYSQL, POSTGRESQL, SQL_ENGINES
from ...errors import (
    AuthenticationError,
    ConfigurationError,
    DatabaseClientError,
    InvalidArgumentError,
    PermissionDeniedError,
    UnsupportedOperationError,
)
from ...tenants._credential import verifying_context
from ...tenants._servers import Server, connection_of, server_of
from ...tenants.errors import GrantError, StoreError
from ..plumbing.failures import advice_for, message_of, said_by
from ..plumbing.opening import KEY_VARIABLE, admin_login, is_missing, keys_in, open_store, shown
from ..plumbing.output import Output
from ..plumbing.printing import printable

_PROVIDERS = ("_dodb", "defaultdb", "postgres", "template1")  # databases of the provider
_SKEW = 30.0  # s between two clocks that are not reported
_FULL = re.compile("too many|connection slots", re.IGNORECASE)  # what a server without a free connection says
_GIVE_READ = "Give the token the scope database:read"


class StepFailedError(Exception):
    """A check failed, and those after it make no sense."""


@define
class Findings:
    """Prints a line for each check as soon as it is done."""

    output: Output
    failed: int = 0

    def ok(self, check: str, found: str) -> None:
        self._print("ok", check, found)

    def fail(self, check: str, found: object, advice: str) -> None:
        """Print what is wrong, and what to do about it."""
        self.failed += 1
        said = str(found)
        if isinstance(found, Exception):
            said = said_by(found) if advice else message_of(found)
        self._print("FAIL", check, said, advice)

    def stop(self, check: str, found: object, advice: str) -> NoReturn:
        """The same, where the checks after it make no sense, so that it raises StepFailedError."""
        self.fail(check, found, advice)
        raise StepFailedError

    @contextmanager
    def needed(self, check: str, advice: Mapping[type[Exception], str]) -> Generator[None]:
        """``stop`` if this block raises one of the errors for which there is ``advice``."""
        try:
            yield
        except tuple(advice) as error:
            self.stop(check, error, next(each for kind, each in advice.items() if isinstance(error, kind)))

    def note(self, check: str, found: str) -> None:
        """Print what is worth knowing and no failure: an answer, or a matter of taste."""
        self._print("note", check, found)

    def skip(self, check: str, why: str) -> None:
        self._print("skip", check, why)

    def _print(self, result: str, check: str, found: str, advice: str = "") -> None:
        members = {"check": check, "result": result.lower(), "found": found} | ({"do": advice} if advice else {})
        self.output.done(f"{result:<4}  {check}: {printable(found)}{f'. {advice}' if advice else ''}", **members)


async def check_token(findings: Findings, client: DatabaseClient) -> None:
    renew = "Make a new one in the control panel under API, and set DIGITALOCEAN_TOKEN"
    reach = "Check the network, the proxy (HTTPS_PROXY) and DIGITALOCEAN_API_URL"
    with (
        findings.needed("API", {DatabaseClientError: reach}),
        findings.needed("token", {AuthenticationError: renew, PermissionDeniedError: _GIVE_READ}),
    ):
        await client.clusters.list()
    findings.ok("token", "accepted, and has the scope database:read. Only --try shows whether it may write")
    limit = client.rate_limit
    if limit is not None and limit.limit is not None:
        findings.ok("rate limit", f"{limit.limit} requests an hour, {limit.remaining} left")


async def check_cluster(findings: Findings, cluster: Cluster, *, private: bool, admin: str | None) -> ClusterInfo:
    """Whether the cluster is online and has users, and what the token may read of it."""
    info = await cluster.info()
    known = CAPABILITIES.get(info.engine)
    if known is None or not known.users:
        findings.stop("cluster", f"{info.name} is a {info.engine}", "It has no users: use another cluster")
    if info.status != "online":
        status = f"{info.name} is not online, its status is {info.status}"
        findings.stop("cluster", status, "Wait until it is online")
    findings.ok("cluster", f"{info.name} is online, {info.engine} {info.version}")
    if info.engine not in SQL_ENGINES:
        findings.note("tenants", "this engine has none; its users work")
    reads: dict[str, Callable[[], Awaitable[object]]] = {"users": cluster.users.list}
    if known.dbs:
        reads["databases"] = cluster.dbs.list
    for what, read in reads.items():
        ways: dict[type[Exception], str] = {PermissionDeniedError: _GIVE_READ, DatabaseClientError: "Try again later"}
        with suppress(StepFailedError), findings.needed(what, ways):
            await read()
            findings.ok(what, "can be listed")
    with findings.needed("connection", {ConfigurationError: ""}):
        connection = connection_of(info, private=private)
    if known.returns_passwords and connection.password is None:
        hidden = "the API does not return them to this token"
        if admin is None and info.engine in POSTGRESQL | MYSQL:
            advice = "Give it the scope database:view_credentials, or pass --admin USER:PASSWORD of an administrator"
            findings.fail("passwords", hidden, advice)
        else:
            findings.skip("passwords", f"{hidden}, and need not")
    elif known.returns_passwords:
        findings.ok("passwords", "are returned: the token has the scope database:view_credentials")
    return info


async def check_server(
    findings: Findings, cluster: Cluster, info: ClusterInfo, *, private: bool, admin: str | None
) -> None:
    """Whether the server can be reached, and what the administrator may do."""
    connection = connection_of(info, private=private)
    ca = None
    if connection.ssl:
        support = "Without it no server can be verified: ask the provider's support"
        with findings.needed("CA", {DatabaseClientError: support, ssl.SSLError: support}):
            ca = await cluster.ca()
            verifying_context(ca)
        findings.ok("CA", "can be read")
    else:
        findings.ok("TLS", "the cluster speaks none")
    dsn = "Set AIODBCLIENT_ADMIN to USER:PASSWORD of an administrator"
    with findings.needed("administrator", {ConfigurationError: dsn, UnsupportedOperationError: dsn}):
        server = server_of(info.engine, connection, ca, admin_login(admin), None)
    await _check_administrator(findings, server, tls=ca is not None)


async def _check_administrator(findings: Findings, server: Server, *, tls: bool) -> None:
    try:
        found = await server.administrator()
    except GrantError as error:
        advice = "Check the password, and the cluster's trusted sources; --private needs a machine in its VPC"
        if _FULL.search(str(error)):
            advice = "Close connections, or use a larger cluster"
        findings.stop("administrator", error, "" if advice_for(error) else advice)
    if tls:
        findings.ok("TLS", "the server's certificate and name are verified by the cluster's CA")
    if found.lacks:
        lacks = f"{found.name} lacks {', '.join(found.lacks)}"
        findings.fail("administrator", lacks, "Use doadmin, or grant it what it lacks")
    else:
        findings.ok("administrator", f"{found.name} logs in to {found.version}, and may create roles and grant rights")
    if opened := [each for each in found.open_databases if each in _PROVIDERS]:
        findings.note("open databases", f"every login may enter {' and '.join(opened)}")
    skew = abs((datetime.now(UTC) - found.clock).total_seconds())
    if skew > _SKEW:
        findings.note("clock", f"it differs from the server's by {skew:.0f} s, and so do the ages of credentials")
    else:
        findings.ok("clock", "is that of the server")


async def check_store(findings: Findings, where: str, cluster_ids: Sequence[str]) -> None:
    """Whether the store can be opened, its key fits, and how many of its tenants are of other clusters."""
    try:
        encrypted = "encrypted" if keys_in() else f"not encrypted: set ${KEY_VARIABLE} to encrypt a new one"
    except (InvalidArgumentError, ConfigurationError) as error:
        findings.fail("store", error, f"set ${KEY_VARIABLE} to what `aiodbclient store keygen` prints")
        return
    if is_missing(where):
        findings.note("store", f"{shown(where)} does not exist yet: `tenants provision` creates it, {encrypted}")
        return
    try:
        async with open_store(where) as store:
            found = [record.cluster async for record in store.records()]
    except (StoreError, ConfigurationError) as error:
        findings.fail("store", error, "" if error.advice else f"check --store, its rights and ${KEY_VARIABLE}")
    else:
        others = sum(each not in cluster_ids for each in found)
        records = f"{len(found)} records{f', {others} of them of other clusters' if others else ''}"
        findings.ok("store", f"{shown(where)} can be read, {records}, {encrypted}")
