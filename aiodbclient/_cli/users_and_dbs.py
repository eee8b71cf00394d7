"""The commands ``aiodbclient clusters``, ``users`` and ``dbs``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any, Literal

from attrs import asdict, define, field

from ..engines import CAPABILITIES, SQL_ENGINES, Engine
from ..errors import DatabaseClientError, InvalidArgumentError, NotFoundError
from ..tenants._naming import is_derived, is_reserved, names_of
from .plumbing.asking import confirm, confirm_destructive
from .plumbing.completion import cluster_names
from .plumbing.failures import Exit
from .plumbing.files import listed, read_names, read_users
from .plumbing.opening import find_cluster, is_missing, limiter_of, open_client, open_store, patiently, shown
from .plumbing.options import (
    CLUSTER_VARIABLE,
    STORE_VARIABLE,
    ApiOptions,
    Confirmation,
    FromOption,
    OneClusterOptions,
    Selection,
    ShowOption,
    YesOption,
    argument,
    choice,
    store_option,
    suggest,
)
from .plumbing.output import ListOutput, Output
from .plumbing.printing import counted, note, printable, some
from .plumbing.progress import Report, follow
from .plumbing.records import names_on_record, read_entries
from .plumbing.running import runs

if TYPE_CHECKING:
    from .. import Cluster, ClusterInfo, User
    from ..bulk import Failed

_KINDS = {"db": "database", "user": "user"}
_UserName = Annotated[str, argument("NAME", "The user.")]
_UserNames = Annotated[list[str] | None, argument("NAME", "The users.")]
_DbName = Annotated[str, argument("NAME", "The database.")]
_StoreOption = Annotated[str | None, store_option("Refuse what is a tenant's in this store.")]
_IfExists = Annotated[
    Literal["keep", "reset", "error", "update"],
    choice("--if-exists", values="keep|reset|error|update", help="What to do with users that exist. Default: keep."),
]


@asynccontextmanager
async def _opened(options: OneClusterOptions, kind: str = "", name: str = "") -> AsyncGenerator[Cluster]:
    """Open a cluster for one call about a user or a database."""
    async with open_client() as client, patiently():
        found = await find_cluster(client, options.cluster)
        try:
            yield found
        except NotFoundError as error:
            if options.verbose or not name:
                raise
            raise NotFoundError(f"no {kind} {name} on {options.cluster}", status=error.status) from None


@asynccontextmanager
async def _changing(options: OneClusterOptions, kind: str, name: str) -> AsyncGenerator[None]:
    """Say how to look, if a change fails or is stopped and may have been applied."""
    try:
        yield
    except (asyncio.CancelledError, DatabaseClientError) as error:
        if getattr(error, "may_have_applied", True):
            note(f"the change may have been applied. To look: {suggest(options, f'{kind}s', 'get', name)}")
        raise


@runs
async def list_clusters(output: ListOutput, api: ApiOptions) -> int:
    """List the account's clusters.

    Example: aiodbclient clusters list
    """
    async with open_client() as client, patiently():
        rows = [_cluster_row(each) for each in await client.clusters.list()]
    output.rows(rows, empty="the account has no clusters")
    return Exit.DONE


@runs
async def get_cluster(
    output: Output,
    api: ApiOptions,
    name: Annotated[
        str, argument("CLUSTER", "The cluster's name or id.", envvar=CLUSTER_VARIABLE, autocompletion=cluster_names)
    ],
) -> int:
    """Read one cluster, and where it listens.

    Example: aiodbclient clusters get tenants-prod
    """
    async with open_client() as client, patiently():
        info = await (await find_cluster(client, name)).info()
    row = _cluster_row(info)
    row |= {"port": info.connection.port, "tls": info.connection.ssl, "host": info.connection.host}
    if info.private_connection is not None:
        row["private_host"] = info.private_connection.host
    output.rows([row])
    return Exit.DONE


def _cluster_row(cluster: ClusterInfo) -> dict[str, object]:
    return {name: getattr(cluster, name) for name in ("name", "engine", "version", "status", "region", "id")}


@runs
async def list_dbs(output: ListOutput, options: OneClusterOptions) -> int:
    """List the databases of a cluster.

    Example: aiodbclient dbs list
    """
    async with _opened(options) as found:
        rows = [{"name": db.name} for db in await found.dbs.list()]
    output.rows(rows, empty=f"{options.cluster} has no databases")
    return Exit.DONE


@runs
async def get_db(output: Output, options: OneClusterOptions, name: _DbName) -> int:
    """Read one database. Exits with 1 if it does not exist.

    Example: aiodbclient dbs get defaultdb
    """
    async with _opened(options, "db", name) as found:
        db = await found.dbs.get(name)
    output.rows([{"name": db.name}])
    return Exit.DONE


@runs
async def create_db(output: Output, options: OneClusterOptions, name: _DbName) -> int:
    """Create a database.

    Example: aiodbclient dbs create archive
    """
    async with _opened(options, "db", name) as found, _changing(options, "db", name):
        await found.dbs.create(name)
    output.done(f"created the database {printable(name)}", name=name, action="created")
    return Exit.DONE


@runs
async def delete_db(
    output: Output, options: OneClusterOptions, name: _DbName, store: _StoreOption = None, yes: YesOption = False
) -> int:
    """Delete a database and all its data. Databases of tenants and the cluster's own are refused.

    Example: aiodbclient dbs delete archive
    """
    async with _opened(options, "db", name) as found:
        await _refuse_tenants(found, "db", [name], store)
        confirm(f"Delete the database {name} of {options.cluster} and all its data?", yes=yes)
        async with _changing(options, "db", name):
            await found.dbs.delete(name)
    output.done(f"deleted the database {printable(name)}", name=name, action="deleted")
    return Exit.DONE


@runs
async def list_users(output: ListOutput, options: OneClusterOptions, show: ShowOption = False) -> int:
    """List the users of a cluster.

    Example: aiodbclient users list
    """
    async with _opened(options) as found:
        rows = [_user_row(user, show=show) for user in await found.users.list()]
    output.rows(rows, empty=f"{options.cluster} has no users")
    return Exit.DONE


@runs
async def get_user(output: Output, options: OneClusterOptions, name: _UserName, show: ShowOption = False) -> int:
    """Read one user.

    Example: aiodbclient users get reporting --show
    """
    async with _opened(options, "user", name) as found:
        user = await found.users.get(name)
    output.rows([_user_row(user, show=show)])
    return Exit.DONE


@runs
async def create_user(output: Output, options: OneClusterOptions, name: _UserName, show: ShowOption = False) -> int:
    """Create a user.

    Later, `users get --show` prints the password. MongoDB returns it once, so --show is required there.

    Example: aiodbclient users create reporting --show
    """
    async with _opened(options, "user", name) as found:
        _check_shown(found, [name], show=show)
        async with _changing(options, "user", name):
            user = await found.users.create(name)
    output.rows([_user_row(user, show=show)])
    return Exit.DONE


@runs
async def delete_users(
    output: Output,
    options: OneClusterOptions,
    confirmation: Confirmation,
    names: _UserNames = None,
    file: FromOption = None,
    store: _StoreOption = None,
) -> int:
    """Delete users. Logins of tenants and the cluster's own users are refused: use `tenants remove`.

    Exits with 1 if a user did not exist.

    Example: aiodbclient users delete reporting
    """
    wanted = read_names(names, file)
    async with open_client() as client:
        found = await find_cluster(client, options.cluster)
        await _refuse_tenants(found, "user", wanted, store)
        existing = {user.name for user in await found.users.list()}
        going = [name for name in wanted if name in existing]
        if confirmation.dry_run:
            return output.preview(
                {"name": name, "would": "delete" if name in existing else "nothing: it is absent"} for name in wanted
            )
        question = f"Delete {counted(going, 'users')} of {options.cluster}?"
        confirm_destructive(question, len(going), Selection(names=names, file=file), confirmation)
        runs = [("", found.users.deprovision(wanted))]
        report = _UserReport(output, options.verbose, options=options, again="")
        code = await follow(runs, report, names=wanted, limiter=limiter_of(client))
    return Exit.SOME_FAILED if code == Exit.DONE and len(going) < len(wanted) else code


@runs
async def reset_user(
    output: Output,
    options: OneClusterOptions,
    name: _UserName,
    show: ShowOption = False,
    store: _StoreOption = None,
    yes: YesOption = False,
) -> int:
    """Give a user a new password. The old one stops working at once. For a tenant, use `tenants rotate`.

    Later, `users get --show` prints the password. MongoDB returns it once, so --show is required there.

    Example: aiodbclient users reset reporting --show
    """
    async with _opened(options, "user", name) as found:
        await _refuse_tenants(found, "user", [name], store)
        _check_shown(found, [name], show=show)
        confirm(
            f"Give the user {name} of {options.cluster} a new password? The old one stops working at once.", yes=yes
        )
        async with _changing(options, "user", name):
            user = await found.users.reset_auth(name)
    output.rows([_user_row(user, show=show)])
    return Exit.DONE


@define
class _UserReport(Report):
    options: OneClusterOptions = field(kw_only=True)
    show: bool = False
    unknown: list[str] = field(factory=list[str])  # whose passwords the API does not return again

    def row(self, outcome: Any, role: str) -> dict[str, Any]:
        if not self.show or outcome.user is None:
            return {}
        if outcome.user.password is None:
            self.unknown.append(outcome.name)
        return {"password": outcome.user.password}

    def text(self, outcome: Any, role: str) -> str:
        password = self.row(outcome, role).get("password")
        return "" if password is None else f"name: {outcome.name}\npassword: {password}\n"

    def hints(self, failed: Sequence[tuple[Failed, str]]) -> list[str]:
        if not self.unknown:
            return []
        reset = suggest(self.options, "users", "provision", *listed(self.unknown), "--if-exists", "reset", "--show")
        return [f"{some(self.unknown)}: the API does not return the password again. If it is lost: {reset}"]


@runs
async def provision_users(
    output: Output,
    options: OneClusterOptions,
    confirmation: Confirmation,
    names: _UserNames = None,
    file: FromOption = None,
    if_exists: _IfExists = "keep",
    show: ShowOption = False,
    store: _StoreOption = None,
) -> int:
    """Create users, with the settings in a file. It deletes no users.

    The file is a CSV with the column `name`, or YAML or JSON as the API's POST takes users. For a user that exists,
    --if-exists reset sets a new password, and asks before; update sends the settings; error counts it as failed.

    Example: aiodbclient users provision --from users.yaml
    """
    from .. import NewUser  # slow to import, and not needed for help

    users = read_users(names, file)
    wanted = [user.name for user in users]
    async with open_client() as client:
        found = await find_cluster(client, options.cluster)
        # Nothing is lost by a provision, so the store may not exist yet.
        known = store if store is None or if_exists == "reset" or not is_missing(store) else None
        await _refuse_tenants(found, "user", wanted, known)
        _check_shown(found, wanted, show=show)
        if confirmation.dry_run:
            existing = {user.name for user in await found.users.list()}
            return output.preview(
                {"name": name, "would": if_exists if name in existing else "create"} for name in wanted
            )
        if if_exists == "reset":
            going = [user.name for user in await found.users.list() if user.name in wanted]
            question = f"Give {counted(going, 'users')} new passwords? The old ones stop working at once."
            confirm_destructive(question, len(going), Selection(names=names, file=file), confirmation)
        runs = [("", found.users.provision(users, if_exists=if_exists))]
        report = _UserReport(output, options.verbose, options=options, show=show)
        if if_exists == "reset":  # again, it would reset the passwords that are printed
            has_settings = any(user != NewUser(user.name) for user in users)
            report.again = "run the same command again without the users that are done" if has_settings else ""
        return await follow(runs, report, names=wanted, limiter=limiter_of(client))


async def _refuse_tenants(found: Cluster, kind: str, names: Sequence[str], store: str | None) -> None:
    """Refuse to change what is a tenant's, by its name or by the store, or the cluster's own."""
    what = f"the {_KINDS[kind]} {{}}"
    for name in names:
        if is_reserved(name):
            raise InvalidArgumentError(f"{what.format(name)} is reserved: the cluster or its tenants may need it")
        if is_derived(name):
            raise InvalidArgumentError(
                f"{what.format(name)} has the name of a tenant's login: use `aiodbclient tenants`"
            )
    engine = found.engine
    if kind == "db" and engine is not None and engine in SQL_ENGINES:
        users = [user.name for user in await found.users.list()]
        for name in names:
            if login := next(filter(_logins_of(name, engine), users), None):
                raise InvalidArgumentError(
                    f"{what.format(name)} is a tenant's, whose login is {login}: use `aiodbclient tenants`"
                )
    if store is None:
        return
    # A store that does not exist is an error: $AIODBCLIENT_STORE may be relative to another folder.
    async with open_store(store, called=f"--store or ${STORE_VARIABLE}") as opened:
        entries = await read_entries(opened)
    for record in entries.records:
        if record.cluster == found.id and (taken := set(names).intersection(names_on_record(record))):
            raise InvalidArgumentError(
                f"{what.format(min(taken))} belongs to the tenant {record.name} in {shown(store)}: use "
                "`aiodbclient tenants`"
            )


def _logins_of(database: str, engine: Engine | str) -> Callable[[str], bool]:
    """Whether a user is a login of the tenant that has this database."""
    try:
        return names_of(database, engine).is_login
    except InvalidArgumentError:  # no tenant has this name
        return lambda _: False


def _check_shown(found: Cluster, names: list[str], *, show: bool) -> None:
    """Refuse to create passwords that are not printed and that the API does not return again."""
    known = None if found.engine is None else CAPABILITIES.get(found.engine)
    if not show and not (known is not None and known.returns_passwords):
        raise InvalidArgumentError(
            f"the passwords of {some(names)} would be lost: for {found.engine} the API returns them once. Add --show"
        )


def _user_row(user: User, *, show: bool) -> dict[str, object]:
    from ..models import USER_SECRETS

    row = asdict(user, filter=lambda field, value: value is not None and (show or field.name not in USER_SECRETS))
    return {"name": row.pop("name"), "role": row.pop("role", None)} | row
