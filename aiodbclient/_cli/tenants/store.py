"""The commands ``aiodbclient store``, on a store as a whole."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Annotated

from ...errors import ConfigurationError, InvalidArgumentError
from ...tenants import Role
from ..plumbing.asking import confirm_destructive
from ..plumbing.failures import Exit
from ..plumbing.files import read_names
from ..plumbing.opening import KEY_VARIABLE, keys_in, open_store, shown
from ..plumbing.options import STORE_VARIABLE, Confirmation, FromOption, Selection, TenantNames, argument, store_option
from ..plumbing.output import ListOutput, Output
from ..plumbing.printing import counted, note, printable, some, write
from ..plumbing.records import has_role, read_entries
from ..plumbing.running import runs

_TARGET_KEY_VARIABLE = "AIODBCLIENT_STORE_KEY_TO"
_HELP = "A file, or postgresql://user@host/db."
_StoreArgument = Annotated[str, argument("STORE", _HELP, envvar=STORE_VARIABLE)]


@runs
async def list_store(store: _StoreArgument, output: ListOutput) -> int:
    """List the records of a store, of all clusters. Sends nothing to the API.

    Example: aiodbclient store list tenants.db
    """
    async with open_store(store, called="STORE") as opened:
        entries = await read_entries(opened, store)
    rows = [
        {
            "name": record.name,
            "role": role.value,
            "username": login.username if (login := record.current(role)) else None,
            "cluster": record.cluster_name,
            "cluster_id": record.cluster,
        }
        for record in entries.records
        for role in Role
        if has_role(record, role)
    ]
    output.rows(rows, empty="" if entries.damaged else f"{shown(store)} has no records")
    return entries.end(Exit.DONE)


@runs
async def forget_records(
    output: Output,
    store: Annotated[str, store_option(_HELP)],
    confirmation: Confirmation,
    names: TenantNames = None,
    file: FromOption = None,
) -> int:
    """Remove the records of tenants, also damaged ones. Their logins and databases stay as they are.

    To remove a tenant itself, use `tenants remove`. To take over again what stays, use `tenants provision --adopt`.

    Example: aiodbclient store forget beta --store copy.db
    """
    wanted = read_names(names, file)
    async with open_store(store) as opened:
        discard: Callable[[str], Awaitable[None]] | None = getattr(opened, "discard", None)
        if discard is None:
            raise InvalidArgumentError(f"{shown(store)} does not support removing a record")
        entries = await read_entries(opened)
        known = {*(record.name for record in entries.records), *entries.damaged}
        if missing := [name for name in wanted if name not in known]:
            note(f"{some(missing)}: not on record. Nothing was changed")
            return Exit.SOME_FAILED
        if confirmation.dry_run:
            return output.preview({"name": name, "would": "forget"} for name in wanted)
        question = f"Remove the record of {counted(wanted)} from {shown(store)}? The passwords are lost"
        question += ", the logins and databases stay."
        confirm_destructive(question, len(wanted), Selection(names=names, file=file), confirmation)
        for name in wanted:
            await discard(name)
            output.done(f"{printable(name)}: forgotten", name=name, action="forgotten")
    return Exit.DONE


@runs
async def make_key() -> int:
    """Print a new key for a store. Put it into $AIODBCLIENT_STORE_KEY, and keep it where you keep secrets.

    Example: aiodbclient store keygen
    """
    try:
        from cryptography.fernet import Fernet
    except ImportError:
        raise ConfigurationError("a key needs the package cryptography: pip install 'aiodbclient[cli]'") from None
    write(f"{Fernet.generate_key().decode()}\n")
    return Exit.DONE


@runs
async def rekey_store(store: _StoreArgument, output: Output) -> int:
    """Encrypt all records of a store with another key: $AIODBCLIENT_STORE_KEY=NEW,OLD.

    Stop the processes that use the store first. Afterwards drop the old key from the variable. To encrypt a store that
    is not encrypted, use `store copy`.

    Example: aiodbclient store rekey tenants.db
    """
    from ...tenants import rewrite_records

    key = keys_in()
    if key is None or len(key) < 2:
        raise InvalidArgumentError(f"set ${KEY_VARIABLE} to NEW,OLD: the first key encrypts")
    async with open_store(store, called="STORE") as opened:
        count = await rewrite_records(opened)
    output.done(f"{count} records rewritten", rewritten=count)
    return Exit.DONE


@runs
async def copy_store(
    source: Annotated[str, argument("STORE", help=_HELP)],
    target: Annotated[str, argument("TARGET", help="The store to write. It is created if it does not exist.")],
    output: Output,
) -> int:
    """Copy all records of a store to another one, such as from a file to a PostgreSQL, or with another key.

    Stop the processes that use STORE first. Afterwards, let all use TARGET. $AIODBCLIENT_STORE_KEY is the key of STORE.
    $AIODBCLIENT_STORE_KEY_TO is that of TARGET: the same if it is not set, none if it is empty. Safe to repeat.

    Example: aiodbclient store copy tenants.db copy.db
    """
    from ...tenants import copy_records

    if source == target:
        raise InvalidArgumentError("STORE and TARGET are the same")
    to = keys_in(_TARGET_KEY_VARIABLE if _TARGET_KEY_VARIABLE in os.environ else KEY_VARIABLE) or []
    async with (
        open_store(source, called="STORE") as read,
        open_store(target, make=True, key=to, called="TARGET") as written,
    ):
        count = await copy_records(read, written)
    output.done(f"{count} records copied", copied=count)
    return Exit.DONE
