"""The commands ``aiodbclient store``, on a store as a whole."""

from __future__ import annotations

import os
from typing import Annotated

from ..errors import ConfigurationError, InvalidArgumentError
from ..tenants import Role
from ..tenants._naming import record_name
from ..tenants._stores.base import BaseStore
from .arguments import RoleOption, YesOption, argument
from .asking import confirm
from .failures import Exit
from .opening import KEY_VARIABLE, TARGET_KEY_VARIABLE, is_file, keys, open_store, shown
from .output import STORE_VARIABLE, keep_stdout_private, note, quoted, safe, write
from .printing import Printed, Rows, print_done, print_rows
from .records import complain_damaged, read_entries
from .running import changes, runs

StoreArgument = Annotated[str, argument("STORE", help="A file, or postgresql://user@host/db.", envvar=STORE_VARIABLE)]


@runs
async def list_store(store: StoreArgument, printed: Rows) -> int:
    """List the records of a store, of all clusters. Sends nothing to the API.

    Example: aiodbclient store list tenants.db
    """
    async with open_store(store, called="STORE") as opened:
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
    async with open_store(store, called="STORE") as opened:
        if not isinstance(opened, BaseStore):
            raise InvalidArgumentError(f"{shown(store)} has no way to remove a record. Nothing was changed")
        confirm(question, yes=yes)
        changes()
        await opened.discard(record_name(name, role))
    print_done(printed, f"{safe(name)}: forgotten", name=name, action="forgotten")
    return Exit.DONE


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
) -> int:
    """Copy all records of a store to another one, such as from a file to a PostgreSQL, or to another key.

    Stop the processes that use STORE first. $AIODBCLIENT_STORE_KEY is the key of STORE. $AIODBCLIENT_STORE_KEY_TO is
    that of TARGET: the same if it is not set, none if it is empty. Safe to repeat.

    Example: aiodbclient store copy tenants.db copy.db
    """
    from ..tenants._stores.copying import copy_records

    if source == target:
        raise InvalidArgumentError("STORE and TARGET are the same. Nothing was changed")
    to = keys(TARGET_KEY_VARIABLE if TARGET_KEY_VARIABLE in os.environ else KEY_VARIABLE) or []
    async with open_store(source, called="STORE") as read, open_store(target, "make", to, called="TARGET") as written:
        changes()
        count = await copy_records(read, written)
    print_done(printed, f"{count} records copied", copied=count)
    if is_file(source) and to and not keys():
        note(
            f"{shown(source)} holds passwords as plain text. Delete it when all processes use the copy: rm "
            f"{quoted(source)}"
        )
    return Exit.DONE
