"""The commands ``aiodbclient store``, on a store as a whole."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

from ..errors import ConfigurationError, InvalidArgumentError
from ..tenants import Role
from ..tenants._naming import record_name
from ..tenants._record import OnRecord
from ..tenants._stores.base import BaseStore
from ..tenants.errors import StoreError
from .arguments import RoleOption, YesOption, argument, option, role_options
from .asking import confirm
from .failures import Exit
from .opening import (
    BACKUP,
    KEY_VARIABLE,
    MOVED,
    TARGET_KEY_VARIABLE,
    clusters_in,
    is_file,
    is_missing,
    keys,
    open_store,
    refusal,
    shown,
)
from .output import STORE_VARIABLE, command_line, keep_stdout_private, note, quoted, safe, this_command, write
from .printing import Printed, Rows, print_done, print_rows
from .records import complain_damaged, read_entries
from .running import changes, runs

if TYPE_CHECKING:
    from ..tenants import Store

StoreArgument = Annotated[str, argument("STORE", help="A file, or postgresql://user@host/db.", envvar=STORE_VARIABLE)]


@runs
async def list_store(store: StoreArgument, printed: Rows) -> int:
    """List the records of a store, of all clusters. Sends nothing to the API.

    Example: aiodbclient store list tenants.db
    """
    async with open_store(store, called="STORE", reads=True) as opened:
        entries = await read_entries(opened)
    rows = list[dict[str, object]]()
    for record in entries.records:
        username = record.current and record.current.username
        role, cluster = record.role.value, record.cluster
        rows.append({"name": record.name, "role": role, "username": username, "cluster": cluster})
    none = "" if entries.damaged else f"{shown(store)} has no records"
    print_rows(rows, printed, last=("username", "cluster"), none=none)
    for role, name in entries.damaged:
        complain_damaged(store, name, role)
    return Exit.UNUSABLE if entries.damaged else Exit.DONE


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
    async with open_store(store, called="STORE", reads=True, on_backups=True) as opened:
        if not isinstance(opened, BaseStore):
            raise InvalidArgumentError(f"{shown(store)} has no way to remove a record. Nothing was changed")
        unfinished = await _unfinished(opened, store, name, role)
        confirm(f"{unfinished} {question}".strip(), yes=yes)
        if unfinished and yes:
            note(unfinished)
        changes()
        await opened.discard(record_name(name, role))
    print_done(printed, f"{safe(name)}: forgotten", name=name, action="forgotten")
    return Exit.DONE


async def _unfinished(opened: Store, store: str, name: str, role: Role) -> str:
    """A warning before the record of a tenant is removed on which a command has not finished; otherwise empty."""
    try:
        record = OnRecord.read(name, role, await opened.get(record_name(name, role)))
        if record.intent is None:
            return ""
        verb = record.pending[0]
    except StoreError as error:
        if not error.damaged:
            raise
        return ""
    home = (await read_entries(opened)).clusters().get(record.cluster or "", "")
    what = "is half removed" if verb == "remove" else f"is waiting for `tenants {verb}` to finish it"
    finish = command_line(["tenants", verb, name, *role_options(role), "--cluster", home, "--store", store])
    return (
        f"{safe(name)} {what}: its database or logins may still be on {safe(home)}, and only this record says so. "
        f"To finish instead: {finish}."
    )


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


@runs
async def make_key() -> int:
    """Print a new key for a store. Put it into $AIODBCLIENT_STORE_KEY, and keep it where you keep secrets.

    Example: aiodbclient store keygen
    """
    try:
        from cryptography.fernet import Fernet
    except ImportError:
        raise ConfigurationError("a key needs the package cryptography: pip install 'aiodbclient[cli]'") from None
    keep_stdout_private()
    write(f"{Fernet.generate_key().decode()}\n", lost="run it again")
    return Exit.DONE


@runs
async def rekey_store(store: StoreArgument, printed: Printed) -> int:
    """Encrypt all records of a store with another key: $AIODBCLIENT_STORE_KEY=NEW,OLD.

    Stop the processes that use the store first. Afterwards drop the old key from the variable. To encrypt a store that
    is not encrypted, use `store copy`.

    Example: aiodbclient store rekey tenants.db
    """
    from ..tenants._stores.copying import rewrite_records

    key = keys()
    if key is None or len(key) < 2:
        raise InvalidArgumentError(f"set ${KEY_VARIABLE} to NEW,OLD: the first key encrypts. Nothing was changed")
    async with open_store(store, called="STORE") as opened:
        changes()
        count = await rewrite_records(opened)
    print_done(printed, f"{count} records rewritten", rewritten=count)
    return Exit.DONE


@runs
async def copy_store(
    source: Annotated[str, argument("STORE", help="The store to read.")],
    target: Annotated[str, argument("TARGET", help="The store to write. It is created if it does not exist.")],
    printed: Printed,
    backup: Annotated[
        bool,
        option("--backup", help="STORE stays in use, and TARGET is a backup of it: older records there are replaced."),
    ] = False,
    restore: Annotated[
        bool, option("--restore", help="STORE is a backup. TARGET is used from now on, since the store was lost.")
    ] = False,
) -> int:
    """Move all records of a store to another one, such as from a file to a PostgreSQL, or make or restore a backup.

    Afterwards STORE refuses every change, or with --backup TARGET. Before a move, stop the processes that use STORE.
    $AIODBCLIENT_STORE_KEY is the key of STORE. $AIODBCLIENT_STORE_KEY_TO is that of TARGET: the same if it is not set,
    none if it is empty. Safe to repeat.

    Example: aiodbclient store copy tenants.db copy.db --backup
    Example: aiodbclient store copy copy.db restored.db --restore
    """
    from ..tenants._stores.copying import copy_records, refresh_records

    if source == target:
        raise InvalidArgumentError("STORE and TARGET are the same. Nothing was changed")
    if backup and restore:
        raise InvalidArgumentError("give --backup or --restore, not both. Nothing was changed")
    to = keys(TARGET_KEY_VARIABLE if TARGET_KEY_VARIABLE in os.environ else KEY_VARIABLE) or []
    async with open_store(source, called="STORE", reads=True, on_backups=True) as read:
        why = await refusal(read)
        is_backup = why is not None and why.startswith(BACKUP)
        if is_backup and not (backup or restore):
            raise InvalidArgumentError(
                f"{shown(source)} {why}. If that one is lost: {this_command('--restore')}. Nothing was changed"
            )
        if restore and not is_backup:
            raise InvalidArgumentError(f"{shown(source)} is no backup: leave out --restore. Nothing was changed")
        async with open_store(target, "make", to, called="TARGET", on_backups=backup) as written:
            if backup:
                await _mark_backup(source, target, written)
            changes()
            if restore:
                await _replace(str(why), target)
            count = await (refresh_records if backup else copy_records)(read, written, claim=why is None)
            if why is None and not backup and isinstance(read, BaseStore):
                await read.refuse_changes(f"{MOVED} {shown(_absolute(target))}")
                count += await copy_records(
                    read, written, claim=False
                )  # what changed meanwhile is refused, by its name
            clusters = await clusters_in(written)
    print_done(printed, f"{count} records copied", copied=count)
    if restore:
        repair = command_line(["tenants", "repair", "--all", "--store", target, *clusters])
        check = command_line(["tenants", "check", "--not-on-record", "--store", target, *clusters])
        note(
            f"use {shown(target)} from now on. `repair` replaces passwords that changed since the backup, and ends "
            f"logins that were made after it. Deliver the credential of each tenant that it repairs: {repair}"
        )
        note(f"to find the tenants that are newer than the backup: {check}")
    elif not backup:
        _say_what_is_left(source, read, encrypts=bool(to))
    return Exit.DONE


async def _replace(why: str, target: str) -> None:
    """Make the store of which a backup is refuse changes, before its successor has a record."""
    path = why.removeprefix(f"{BACKUP} {shown('')}")
    lost = None if path == why else path  # it was in a PostgreSQL
    if lost is None or is_missing(lost):
        what = "in a PostgreSQL" if lost is None else f"{lost}, and not there"
        note(f"the store of the backup is {what}: stop all processes that still use it, since they would change it")
    elif lost != _absolute(target):
        try:
            async with open_store(lost, reads=True) as replaced:
                if isinstance(replaced, BaseStore) and await replaced.refusal() is None:
                    await replaced.refuse_changes(f"{MOVED} {shown(_absolute(target))}")
                    note(f"{shown(lost)} is still there. It takes no change any more")
        except StoreError as error:
            note(f"{shown(lost)} is still there. Stop all processes that use it, since it still takes changes: {error}")


async def _mark_backup(source: str, target: str, written: Store) -> None:
    """Make a new or empty store, or a backup, a backup of ``source``, before it has a record."""
    if not isinstance(written, BaseStore):
        note(f"{shown(target)} has no way to refuse changes: let no program use it")
        return
    if await written.refusal() is None:
        async for _ in written.entries():
            raise InvalidArgumentError(
                f"{shown(target)} has records and is no backup, so it may be in use: give another TARGET. Nothing was "
                "changed"
            )
    await written.refuse_changes(f"{BACKUP} {shown(_absolute(source))}")
    await written.ignore_refusal()


def _absolute(where: str) -> str:
    """The store as another working directory names it."""
    return os.path.abspath(where) if is_file(where) else where


def _say_what_is_left(source: str, read: Store, *, encrypts: bool) -> None:
    """Print what becomes of a store that was moved."""
    if not isinstance(read, BaseStore):
        note(f"{shown(source)} has no way to refuse changes: let no process use it any more")
    if is_file(source):
        plain = "holds passwords as plain text. " if encrypts and not keys() else "takes no change any more. "
        note(f"{shown(source)} {plain}Delete it when all processes use the copy: rm {quoted(source)}")
