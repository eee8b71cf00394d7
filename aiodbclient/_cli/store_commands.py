"""The commands ``aiodbclient store``, on a store as a whole."""

from __future__ import annotations

import os
from typing import Annotated

from ..errors import ConfigurationError, InvalidArgumentError, StoreError
from ..tenants import Role
from ..tenants._naming import record_name, tenant_of
from ..tenants._record import cluster_of
from ..tenants._stores.base import BaseStore
from .arguments import Printed, Rows
from .asking import confirm
from .options import STORE_VARIABLE, RoleOption, YesOption, argument, option
from .output import DONE, UNUSABLE, as_json, note, quoted, safe, write
from .records import complain_damaged
from .running import changes, runs
from .stores import KEY_VARIABLE, TARGET_KEY_VARIABLE, IfMissing, absolute, is_file, keys, open_store, shown
from .tables import print_rows

StoreArgument = Annotated[str, argument("STORE", help="A file, or postgresql://user@host/db.", envvar=STORE_VARIABLE)]


@runs
async def list_store(store: StoreArgument, printed: Rows) -> int:
    """List the records of a store, of all clusters. Sends nothing to the API.

    Example: aiodbclient store list tenants.db
    """
    rows, damaged = list[dict[str, object]](), list[str]()
    async with open_store(store, called="STORE", reads=True) as opened:
        try:
            async for record in opened.records():
                name, role = tenant_of(record.name)
                username = record.current and record.current.username
                rows.append({"name": name, "role": role.value, "username": username, "cluster": cluster_of(record)})
        except StoreError as error:
            if not error.damaged:
                raise
            damaged += error.damaged
    none = "" if damaged else f"{shown(store)} has no records"
    print_rows(rows, printed, last=("username", "cluster"), none=none)
    for each in damaged:
        complain_damaged(store, *tenant_of(each))
    return UNUSABLE if damaged else DONE


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
    async with open_store(store, called="STORE", reads=True) as opened:
        if not isinstance(opened, BaseStore):
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


@runs
async def copy_store(
    source: Annotated[str, argument("STORE", help="The store to read.")],
    target: Annotated[str, argument("TARGET", help="The store to write. It is created if it does not exist.")],
    printed: Printed,
    backup: Annotated[
        bool,
        option("--backup", help="STORE stays in use, and TARGET is a backup of it: older records there are replaced."),
    ] = False,
) -> int:
    """Move all records of a store to another one, such as from a file to a PostgreSQL, or make a backup.

    Afterwards STORE refuses every change, unless TARGET is a --backup. Stop the processes that use STORE before.
    $AIODBCLIENT_STORE_KEY is the key of STORE. $AIODBCLIENT_STORE_KEY_TO is that of TARGET: the same if it is not set,
    none if it is empty. Safe to repeat.

    Example: aiodbclient store copy tenants.db copy.db --backup
    """
    from ..tenants._stores.moving import copy_records, refresh_records

    if source == target:
        raise InvalidArgumentError("STORE and TARGET are the same. Nothing was changed")
    to = keys(TARGET_KEY_VARIABLE if TARGET_KEY_VARIABLE in os.environ else KEY_VARIABLE) or []
    async with (
        open_store(source, called="STORE", reads=True) as read,
        open_store(target, IfMissing.MAKE, to, called="TARGET") as written,
    ):
        changes()
        marked = read if isinstance(read, BaseStore) else None
        moved = None if marked is None else await marked.moved_to()
        count = await (refresh_records if backup else copy_records)(read, written, claim=moved is None)
        if marked is not None and moved is None and not backup:
            await marked.mark_moved(shown(absolute(target)))
            count += await copy_records(read, written, claim=False)  # what changed meanwhile is refused, by its name
    _say_done(count, "copied", printed)
    if backup:
        return DONE
    if marked is None:
        note(f"{shown(source)} has no way to refuse changes: let no process use it any more")
    if is_file(source):
        plain = "holds passwords as plain text. " if to and not keys() else "takes no change any more. "
        note(f"{shown(source)} {plain}Delete it when all processes use the copy: rm {quoted(source)}")
    return DONE


def _say_done(count: int, what: str, printed: Printed) -> None:
    write(f"{as_json({what: count})}\n" if printed.as_json else f"{count} records {what}\n")
