"""The commands ``aiodbclient store``, on a store as a whole."""

from __future__ import annotations

import os
from typing import Annotated

from ..errors import ConfigurationError, InvalidArgumentError
from ..tenants._stores.base import BaseStore
from .asking import confirm
from .failures import Exit
from .opening import KEY_VARIABLE, keys_in, open_store, shown
from .options import STORE_VARIABLE, YesOption, argument
from .output import Output
from .printing import printable, write
from .records import read_entries
from .running import runs

_TARGET_KEY_VARIABLE = "AIODBCLIENT_STORE_KEY_TO"
_HELP = "A file, or postgresql://user@host/db."
_StoreArgument = Annotated[str, argument("STORE", _HELP, envvar=STORE_VARIABLE)]


@runs
async def list_store(store: _StoreArgument, output: Output) -> int:
    """List the records of a store, of all clusters. Sends nothing to the API.

    Example: aiodbclient store list tenants.db
    """
    async with open_store(store, called="STORE") as opened:
        entries = await read_entries(opened)
    clusters = entries.clusters()
    rows = [
        {
            "name": record.name,
            "role": record.role.value,
            "username": record.current and record.current.username,
            "cluster": clusters.get(record.cluster or ""),
            "cluster_id": record.cluster,
        }
        for record in entries.records
    ]
    output.rows(rows, empty="" if entries.damaged else f"{shown(store)} has no records")
    return entries.end(Exit.DONE)


@runs
async def forget_record(
    words: Annotated[
        list[str], argument("STORE NAME", f"The store, and the tenant. Default of STORE: ${STORE_VARIABLE}.")
    ],
    output: Output,
    yes: YesOption = False,
) -> int:
    """Remove the record of a tenant, also if it is damaged. Its logins and its database stay as they are.

    To remove the tenant itself, use `tenants remove`. To take over again what stays, use `tenants provision --adopt`.

    Example: aiodbclient store forget copy.db beta
    """
    *stores, name = words
    store = stores[0] if stores else os.environ.get(STORE_VARIABLE)
    if not store or not name or len(stores) > 1:
        raise InvalidArgumentError(f"give STORE and NAME, or set ${STORE_VARIABLE} and give NAME")
    async with open_store(store, called="STORE") as opened:
        if not isinstance(opened, BaseStore):
            raise InvalidArgumentError(f"{shown(store)} does not support removing a record")
        confirm(
            f"Remove the record of {name} from {shown(store)}? Its password is lost, its logins and database stay.",
            yes=yes,
        )
        await opened.discard(name)
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
    from ..tenants import rewrite_records

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

    Stop the processes that use STORE first, and then let all use TARGET. $AIODBCLIENT_STORE_KEY is the key of STORE.
    $AIODBCLIENT_STORE_KEY_TO is that of TARGET: the same if it is not set, none if it is empty. Safe to repeat.

    Example: aiodbclient store copy tenants.db copy.db
    """
    from ..tenants import copy_records

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
