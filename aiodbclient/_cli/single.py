"""The commands of one call each: ``aiodbclient clusters``, ``users`` and ``dbs``."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from attrs import asdict

from .. import Cluster, ClusterClient, User
from ..engines import CAPABILITIES
from ..errors import DatabaseClientError, InvalidArgumentError, NotFoundError
from ..models import USER_SECRETS
from ..tenants._naming import is_reserved
from ..tenants._record import read_all
from ..tenants._stores import readable
from .arguments import Api, Ending, ListedOn, NamedOn, OnCluster, ShowOption, role_options
from .asking import confirm
from .failures import Exit
from .names import check_name
from .opening import find_cluster, may_have_tenants, open_client, open_known, patiently, refuse_tenants, shown
from .output import check_stdout, command_line, keep_stdout_private, note, safe, this_command
from .printing import Printed, Rows, Table, print_objects, print_rows
from .records import names_on_record
from .running import changes, runs

_LOST = "the password would be lost: nothing was sent"
_LAST = ("host", "id")
_KINDS = {"db": "database", "user": "user"}


@asynccontextmanager
async def _opened(
    place: OnCluster, cluster: str, what: str = "", *, to_change: bool = False
) -> AsyncGenerator[ClusterClient]:
    """Open a cluster for one call about ``what``, such as ``user alpha``."""
    async with open_client(place.budget) as (client, _), patiently():
        found = await find_cluster(client, cluster)
        if to_change:
            changes()
        try:
            yield found
        except NotFoundError as error:
            if place.verbose or not what:
                raise
            raise NotFoundError(f"no {what} on {safe(cluster)}", status=error.status) from None
        except DatabaseClientError as error:
            if what and error.may_have_applied:
                kind, _, name = what.partition(" ")
                note(f"to see what was done: {command_line([f'{kind}s', 'get', cluster, name])}")
            raise


@runs
async def list_clusters(printed: Rows, api: Api) -> int:
    """List the account's clusters. `aiodbclient clusters` alone does the same.

    Example: aiodbclient clusters list
    """
    async with open_client(api.budget) as (client, _), patiently():
        rows = [_cluster(each) for each in await client.clusters.list()]
    print_rows(rows, printed, last=_LAST, none="the account has no clusters")
    return Exit.DONE


@runs
async def get_cluster(printed: Table, place: ListedOn) -> int:
    """Read one cluster, and where it listens.

    Example: aiodbclient clusters get tenants-prod
    """
    cluster = place.target
    async with _opened(place, cluster) as found:
        info = await found.info()
    row = _cluster(info)
    row |= {"port": info.connection.port, "tls": info.connection.ssl, "host": info.connection.host}
    if info.private_connection is not None:
        row["private_host"] = info.private_connection.host
    print_rows([row | {"id": row.pop("id")}], printed)
    return Exit.DONE


def _cluster(cluster: Cluster) -> dict[str, object]:
    members = ("name", "engine", "version", "status", "region", "id")
    return {name: getattr(cluster, name) for name in members}


@runs
async def list_dbs(printed: Rows, place: ListedOn) -> int:
    """List the databases of a cluster.

    Example: aiodbclient dbs list tenants-prod
    """
    cluster = place.target
    async with _opened(place, cluster) as found:
        rows = [{"name": db.name} for db in await found.dbs.list()]
    print_rows(rows, printed, none=f"{cluster} has no databases")
    return Exit.DONE


@runs
async def get_db(printed: Table, place: NamedOn) -> int:
    """Read one database: exits with 1 if it does not exist.

    Example: aiodbclient dbs get tenants-prod defaultdb
    """
    cluster, name = place.target
    async with _opened(place, cluster, f"db {name}") as found:
        db = await found.dbs.get(name)
    print_rows([{"name": db.name}], printed)
    return Exit.DONE


@runs
async def create_db(printed: Printed, place: NamedOn) -> int:
    """Create a database.

    Example: aiodbclient dbs create tenants-prod archive
    """
    cluster, name = place.target
    check_name(name)
    async with _opened(place, cluster, f"db {name}", to_change=True) as found:
        await found.dbs.create(name)
    _print_done(name, f"created the database {safe(name)}", printed)
    return Exit.DONE


@runs
async def delete_db(printed: Printed, place: NamedOn, ending: Ending) -> int:
    """Delete a database and all its data. For a tenant, use `tenants remove`.

    It refuses what is a tenant's in the store, and what belongs to the cluster, such as defaultdb. --yes needs the
    cluster beside the name.

    Example: aiodbclient dbs delete tenants-prod archive --not-a-tenant --yes
    """
    return await _delete("db", printed, place, ending)


@runs
async def list_users(printed: Rows, place: ListedOn, show: ShowOption = False) -> int:
    """List the users of a cluster.

    Example: aiodbclient users list tenants-prod
    """
    cluster = place.target
    async with _opened(place, cluster) as found:
        rows = [_user(user, show) for user in await found.users.list()]
    _print_users(rows, printed, none=f"{cluster} has no users")
    return Exit.DONE


@runs
async def get_user(printed: Table, place: NamedOn, show: ShowOption = False) -> int:
    """Read one user.

    Example: aiodbclient users get tenants-prod reporting --show
    """
    cluster, name = place.target
    async with _opened(place, cluster, f"user {name}") as found:
        user = await found.users.get(name)
    _print_users([_user(user, show)], printed)
    return Exit.DONE


@runs
async def create_user(printed: Table, place: NamedOn, show: ShowOption = False) -> int:
    """Create a user. `users get --show` prints the password later. On MongoDB it does not, so this needs --show there.

    Example: aiodbclient users create tenants-prod reporting --show
    """
    cluster, name = place.target
    check_name(name)
    if show:
        check_stdout(_LOST)
    async with _opened(place, cluster, f"user {name}") as found:
        _check_shown(found, show)
        changes()
        user = await found.users.create(name)
    _print_new(user, f"the user {safe(name)} was created with a password", cluster, printed, show)
    return Exit.DONE


@runs
async def delete_user(printed: Printed, place: NamedOn, ending: Ending) -> int:
    """Delete a user. For a tenant, use `tenants remove`.

    It refuses what is a tenant's in the store, and what belongs to the cluster, such as doadmin. --yes needs the
    cluster beside the name.

    Example: aiodbclient users delete tenants-prod reporting --not-a-tenant --yes
    """
    return await _delete("user", printed, place, ending)


def _to_end(place: NamedOn, ending: Ending) -> tuple[str, str]:
    """The cluster and the name of what is deleted or reset. Unasked, it must be clear which word is which."""
    cluster, name = place.target
    if ending.yes and not place.is_whole:  # the other word may have been an empty variable of a script
        raise InvalidArgumentError(
            f"--yes needs CLUSTER and NAME here, and only {name!r} is given. If it is the NAME: "
            f"{this_command(*_wholly(place, cluster))}. Nothing was sent"
        )
    return cluster, name


def _wholly(place: NamedOn, cluster: str) -> list[str]:
    """The options that lead another command to the cluster, if the environment led this one."""
    return [] if place.is_whole else ["--cluster", cluster]


async def _delete(kind: str, printed: Printed, place: NamedOn, ending: Ending) -> int:
    cluster, name = _to_end(place, ending)
    what = f"the {_KINDS[kind]} {safe(name)}"
    if is_reserved(name):
        raise InvalidArgumentError(f"{what} belongs to the cluster, and its tenants may need it. Nothing was sent")
    async with _opened(place, cluster, f"{kind} {name}") as found:
        await _refuse_tenants(found, what, "remove", name, cluster, ending)
        question = f"Delete {what} of {cluster}{' and all its data' if kind == 'db' else ''}?"
        confirm(question, yes=ending.yes, options=_wholly(place, cluster))
        changes()
        await (found.dbs if kind == "db" else found.users).delete(name)
    _print_done(name, f"deleted {what}", printed)
    return Exit.DONE


@runs
async def reset_user(printed: Table, place: NamedOn, *, show: ShowOption = False, ending: Ending) -> int:
    """Give a user a new password. The old one stops working at once.

    `users get --show` prints the new one later. On MongoDB it does not, so this needs --show there. For a tenant, use
    `tenants rotate`: this refuses what is a tenant's in the store. --yes needs the cluster beside the name.

    Example: aiodbclient users reset tenants-prod reporting --show --not-a-tenant --yes
    """
    cluster, name = _to_end(place, ending)
    question = f"Give the user {safe(name)} of {cluster} a new password? The old one stops working at once."
    if show:
        check_stdout(_LOST)
    async with _opened(place, cluster, f"user {name}") as found:
        what = f"the user {safe(name)}"
        await _refuse_tenants(found, what, "rotate", name, cluster, ending)
        _check_shown(found, show)
        confirm(question, yes=ending.yes, options=_wholly(place, cluster))
        changes()
        user = await found.users.reset_auth(name)
    _print_new(user, f"the user {safe(name)} has a new password", cluster, printed, show)
    return Exit.DONE


async def _refuse_tenants(found: ClusterClient, what: str, verb: str, name: str, cluster: str, ending: Ending) -> None:
    """Refuse what is a tenant's in the store, and without --not-a-tenant what may be one's. ``verb`` is for those."""
    store = ending.store
    async with open_known(store if may_have_tenants(found) else None) as opened:
        for tenant in [] if opened is None else [each async for each in readable(read_all(opened))]:
            if name in names_on_record(tenant) and tenant.cluster in (None, found.id):
                there = [*role_options(tenant.role), "--cluster", cluster, "--store", str(store)]
                raise InvalidArgumentError(
                    f"{what} belongs to the tenant {safe(tenant.name)} in {shown(str(store))}. For the tenant: "
                    f"{command_line(['tenants', verb, tenant.name, *there])}. Nothing was changed"
                )
    refuse_tenants(found, what, [verb, name, "--cluster", cluster], not_a_tenant=ending.not_a_tenant)


def _check_shown(found: ClusterClient, show: bool) -> None:
    """Refuse to make a password that nobody will see: one that is not printed, and that the API returns once."""
    known = None if found.engine is None else CAPABILITIES.get(found.engine)
    if not show and not (known is not None and known.returns_passwords):
        raise InvalidArgumentError(
            f"the password would be lost. To print it: {this_command('--show')}. Nothing was sent"
        )


def _print_new(user: User, done: str, cluster: str, printed: Table, show: bool) -> None:
    reset = command_line(["users", "reset", cluster, user.name, "--show", "--not-a-tenant"])
    lost = f"{done}, which was not printed and is not stored. Make another one: {reset}"
    _print_users([_user(user, show)], printed, lost=lost if show else "")
    if not show:
        note(f"to see its password: {command_line(['users', 'get', cluster, user.name, '--show'])}")


def _print_users(rows: list[dict[str, object]], printed: Table, *, lost: str = "", none: str = "") -> None:
    if any(secret in row for row in rows for secret in USER_SECRETS):
        keep_stdout_private()
    print_rows(rows, printed, last=("role", "settings"), lost=lost, none=none)


def _user(user: User, show: bool) -> dict[str, object]:
    row = asdict(user, filter=lambda field, value: value is not None and (show or field.name not in USER_SECRETS))
    return {"name": row.pop("name"), "role": row.pop("role", None)} | row


def _print_done(name: str, done: str, printed: Printed) -> None:
    if printed.as_json:
        print_objects([{"name": name, "action": done.partition(" ")[0]}])
    else:
        note(done)
