"""The store that an operator means, and the commands ``aiodbclient store`` on it as a whole."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from enum import Enum, auto
from importlib.metadata import entry_points
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated
from urllib.parse import urlsplit

from ..errors import ConfigurationError, InvalidArgumentError, StoreError
from ..tenants import PostgresStore, Role, Seal, SQLiteStore, Store
from ..tenants._naming import record_name, tenant_of
from .arguments import STORE_VARIABLE, Printed, RoleOption, Table, YesOption, argument, role_options
from .asking import confirm
from .help import Command, group
from .output import NAME, as_json, command_line, complain, note, print_rows, quoted, safe, write
from .running import DONE, UNUSABLE, changes, runs

app = group("Look into a store of tenants, change its key, copy it, or remove a damaged record.")

StoreArgument = Annotated[str, argument("STORE", help="A file, or postgresql://user@host/db.", envvar=STORE_VARIABLE)]

KEY_VARIABLE = "AIODBCLIENT_STORE_KEY"
TARGET_KEY_VARIABLE = "AIODBCLIENT_STORE_KEY_TO"
ENTRY_POINTS = "aiodbclient.stores"
_POSTGRESQL = ("postgresql", "postgres")
_NO_TABLE = "SQLSTATE 42P01"


@app.command("list", cls=Command)
@runs
async def list_store(store: StoreArgument, printed: Table) -> int:
    """List the records of a store, of all clusters. Sends nothing to the API.

    Example: aiodbclient store list tenants.db
    """
    rows, damaged = list[dict[str, object]](), list[str]()
    async with open_store(store, called="STORE") as opened:
        try:
            async for record in opened.records():
                name, role = tenant_of(record.name)
                login: dict[str, object] = {
                    "username": record.current and record.current.username,
                    "cluster": record.current and record.current.cluster,
                }
                rows.append({"name": name, "role": role.value} | login)
        except StoreError as error:
            if not error.damaged:
                raise
            damaged += error.damaged
    none = "" if damaged else f"{shown(store)} has no records"
    print_rows(rows, as_objects=printed.as_json, wide=printed.wide, last=("username", "cluster"), none=none)
    for each in damaged:
        complain_damaged(store, *tenant_of(each))
    return UNUSABLE if damaged else DONE


@app.command("forget", cls=Command)
@runs
async def forget_record(
    words: Annotated[
        list[str], argument("STORE NAME", help=f"The store, and the tenant. Default of STORE: ${STORE_VARIABLE}.")
    ],
    printed: Printed,
    role: RoleOption = Role.OWNER,
    yes: YesOption = False,
) -> int:
    """Remove the record of a tenant, also if it is damaged. Its logins and its database stay as they are.

    To remove the tenant itself, use `tenants remove`. To take over again what stays, use `tenants provision --adopt`.

    Example: aiodbclient store forget copy.db beta --yes
    """
    store, name = _store_and_name(words)
    question = (
        f"Remove the record of {safe(name)} from {shown(store)}? Its password is lost, its logins and database stay."
    )
    async with open_store(store, called="STORE") as opened:
        if not isinstance(opened, SQLiteStore | PostgresStore):
            raise InvalidArgumentError(f"{shown(store)} has no way to remove a record. Nothing was changed")
        confirm(question, yes=yes)
        changes()
        await opened.discard(record_name(name, role))
    if printed.as_json:
        write(f"{as_json({'name': name, 'action': 'forgotten'})}\n")
    else:
        write(f"{safe(name)}: forgotten\n")
    return DONE


def _store_and_name(words: list[str]) -> tuple[str, str]:
    default = os.environ.get(STORE_VARIABLE)
    match words:
        case [store, name]:
            return store, name
        case [name] if default:
            return default, name
        case [_]:
            raise InvalidArgumentError(f"give STORE and NAME, or set ${STORE_VARIABLE} and give NAME")
        case _:
            raise InvalidArgumentError(f"unexpected extra argument: {words[2]!r}")


@app.command("keygen", cls=Command)
@runs
async def make_key() -> int:
    """Print a new key for a store. Put it into $AIODBCLIENT_STORE_KEY, and keep it where you keep secrets.

    Example: aiodbclient store keygen
    """
    try:
        from cryptography.fernet import Fernet
    except ImportError:
        raise ConfigurationError("a key needs the package cryptography: pip install 'aiodbclient[cli]'") from None
    write(f"{Fernet.generate_key().decode()}\n", lost="run it again")
    return DONE


@app.command("rekey", cls=Command)
@runs
async def rekey_store(store: StoreArgument, printed: Printed) -> int:
    """Encrypt all records of a store with another key: $AIODBCLIENT_STORE_KEY=NEW,OLD.

    Stop the processes that use the store first. Afterwards drop the old key from the variable. To encrypt a store that
    is not encrypted, use `store copy`.

    Example: aiodbclient store rekey tenants.db
    """
    from ..tenants._stores.moving import rewrite_records

    key = keys()
    if key is None or len(key) < 2:
        raise InvalidArgumentError(f"set ${KEY_VARIABLE} to NEW,OLD: the first key encrypts. Nothing was changed")
    async with open_store(store, called="STORE") as opened:
        changes()
        _say_done(await rewrite_records(opened), "rewritten", printed)
    return DONE


@app.command("copy", cls=Command)
@runs
async def copy_store(
    source: Annotated[str, argument("STORE", help="The store to read.")],
    target: Annotated[str, argument("TARGET", help="The store to write. It is created if it does not exist.")],
    printed: Printed,
) -> int:
    """Copy all records of a store to another one, such as from a file to a PostgreSQL.

    $AIODBCLIENT_STORE_KEY is the key of STORE. $AIODBCLIENT_STORE_KEY_TO is that of TARGET: the same if it is not set,
    none if it is empty. Before you move to the copy, stop the processes that use the store. Safe to repeat.

    Example: aiodbclient store copy tenants.db copy.db
    """
    from ..tenants._stores.moving import copy_records

    if source == target:
        raise InvalidArgumentError("STORE and TARGET are the same. Nothing was changed")
    to = keys(TARGET_KEY_VARIABLE if TARGET_KEY_VARIABLE in os.environ else KEY_VARIABLE) or []
    async with open_store(source, called="STORE") as read, open_store(target, IfMissing.MAKE, to) as written:
        changes()
        _say_done(await copy_records(read, written), "copied", printed)
    if to and not keys():
        delete = f": rm {quoted(source)}" if is_file(source) else ""
        note(f"{shown(source)} holds passwords as plain text. Delete it when all processes use the copy{delete}")
    return DONE


def _say_done(count: int, what: str, printed: Printed) -> None:
    write(f"{as_json({what: count})}\n" if printed.as_json else f"{count} records {what}\n")


class IfMissing(Enum):
    """What happens to a store that does not exist."""

    FAIL = auto()
    MAKE = auto()
    EMPTY = auto()  # it counts as an empty store, and is not created


def keys(variable: str = KEY_VARIABLE) -> list[str] | None:
    """The keys in an environment variable, with commas between them; None if there is none."""
    found = [part.strip() for part in os.environ.get(variable, "").split(",") if part.strip()] or None
    try:
        Seal(found)
    except InvalidArgumentError:
        raise InvalidArgumentError(
            f"${variable} has something else than keys that `aiodbclient store keygen` prints, with commas between them"
        ) from None
    return found


@asynccontextmanager
async def open_store(
    where: str, if_missing: IfMissing = IfMissing.FAIL, key: list[str] | None = None, called: str = "--store"
) -> AsyncGenerator[Store]:
    """Open the store."""
    async with AsyncExitStack() as stack:
        opened: Store | None = None
        key = keys() if key is None else (key or None)
        store = _store(where, key, make=if_missing is IfMissing.MAKE)
        if if_missing is IfMissing.MAKE and key is None and is_missing(where):
            path = Path(where)
            encrypted = path.with_name(f"{path.stem}-encrypted{path.suffix}")
            file = quoted(str(path.with_name(f"{path.stem}.key")))
            copy = command_line(["store", "copy", where, str(encrypted)])
            note(
                f"the new store {where} holds passwords as plain text. To encrypt it: export {TARGET_KEY_VARIABLE}="
                f"$(umask 077; {NAME} store keygen | tee {file}); {copy}. Then use the copy with the key in {file} as "
                f"${KEY_VARIABLE}, and keep that file: the copy is unreadable without it"
            )
        if if_missing is IfMissing.MAKE or not is_missing(where):
            try:
                opened = await stack.enter_async_context(store)
            except StoreError as error:
                if _NO_TABLE not in str(error):
                    raise
        if opened is None and if_missing is IfMissing.EMPTY:
            note(f"{shown(where)} does not exist yet: provisioning creates it")
            folder = stack.enter_context(TemporaryDirectory())
            opened = await stack.enter_async_context(SQLiteStore(Path(folder) / "nothing.db"))
        if opened is None:
            raise StoreError(
                f"{shown(where)} does not exist: check {called}. Only provisioning and `store copy` create a store"
            )
        yield opened


def complain_damaged(where: str, name: str, role: Role) -> None:
    """Print that a record is damaged, and the command that removes it."""
    forget = command_line(["store", "forget", where, name, *role_options(role)])
    complain(f"{safe(name)}: its record is damaged. Restore the store, or remove it: {forget}", UNUSABLE)


def _store(where: str, key: list[str] | None, *, make: bool) -> Store:
    scheme = _scheme_of(where)
    if scheme is None:
        return SQLiteStore(where, key=key)
    if scheme in _POSTGRESQL:
        return PostgresStore(where, key=key, make=make)
    found = entry_points(group=ENTRY_POINTS, name=scheme)
    if not found:
        others = "".join(f", {name}://" for name in sorted(entry_points(group=ENTRY_POINTS).names))
        raise InvalidArgumentError(
            f"--store {scheme}://... is not supported. It takes a file, postgresql://{others}; another package can add "
            f"stores by entry points of the group {ENTRY_POINTS}"
        )
    load: Callable[[str, list[str] | None], Store] = next(iter(found)).load()
    return load(where, key)


def is_missing(where: str) -> bool:
    """Whether the store is a file that does not exist."""
    return is_file(where) and not Path(where).exists()


def is_postgresql(where: str) -> bool:
    """Whether the store is in PostgreSQL."""
    return _scheme_of(where) in _POSTGRESQL


def is_file(where: str) -> bool:
    """Whether the store is a file, or would be."""
    return _scheme_of(where) is None


def _scheme_of(where: str) -> str | None:
    """The scheme of a URL; None for a path."""
    return urlsplit(where).scheme if "://" in where else None


def shown(where: str) -> str:
    """The store as a message names it: a URL may hold a password."""
    return f"the store {where}" if is_file(where) else "the table of the store in PostgreSQL"
