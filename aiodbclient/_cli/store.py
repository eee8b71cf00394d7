"""The commands ``aiodbclient store``: what is done with a store as a whole."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from ..errors import ConfigurationError, InvalidArgumentError
from ..tenants._naming import tenant_of
from .arguments import JsonOption
from .help import Command, group
from .output import print_rows, write
from .running import DONE, reads, writes
from .stores import KEY_VARIABLE, IfMissing, keys, open_store

TARGET_KEY_VARIABLE = "AIODBCLIENT_STORE_KEY_TO"

app = group("Look into a store of tenants, change its key, or copy it.")

StoreArgument = Annotated[
    str,
    typer.Argument(
        metavar="STORE",
        envvar="AIODBCLIENT_STORE",
        help="A file, or postgresql://user@host/db.",
        show_default=False,
    ),
]


@app.command("list", cls=Command)
@reads
async def list_store(store: StoreArgument, json: JsonOption = False) -> int:
    """List the records of a store, of all clusters. Sends nothing to the API.

    Example: aiodbclient store list tenants.db
    """
    async with open_store(store) as opened:
        rows = [
            {
                "name": tenant_of(record.name)[0],
                "role": tenant_of(record.name)[1].value,
                "login": record.current and record.current.username,
                "cluster": record.current and record.current.cluster,
            }
            async for record in opened.records()
        ]
    print_rows(rows, as_json=json, none=f"{store} has no records")
    return DONE


@app.command("keygen", cls=Command)
@reads
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
@writes
async def rekey_store(store: StoreArgument, json: JsonOption = False) -> int:
    """Encrypt all records of a store with another key: $AIODBCLIENT_STORE_KEY=NEW,OLD.

    Stop the processes that use the store first. Afterwards drop the old key from the variable. To encrypt a store that
    is not encrypted, use `store copy`.

    Example: aiodbclient store rekey tenants.db
    """
    from ..tenants._stores.moving import rewrite_records

    key = keys()
    if key is None or len(key) < 2:
        raise InvalidArgumentError(f"set ${KEY_VARIABLE} to NEW,OLD: the first key encrypts. Nothing was changed")
    async with open_store(store) as opened:
        _say_done(await rewrite_records(opened), "rewritten", as_json=json)
    return DONE


@app.command("copy", cls=Command)
@writes
async def copy_store(
    source: Annotated[str, typer.Argument(metavar="STORE", help="The store to read.", show_default=False)],
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET", help="The store to write. It is created if it does not exist.", show_default=False
        ),
    ],
    json: JsonOption = False,
) -> int:
    """Copy all records of a store to another one, such as from a file to a PostgreSQL.

    $AIODBCLIENT_STORE_KEY is the key of STORE. $AIODBCLIENT_STORE_KEY_TO is that of TARGET: the same if it is not set,
    none if it is empty. Stop the processes that use the store first. Run it again if it was stopped.

    Example: aiodbclient store copy tenants.db copy.db
    """
    from ..tenants._stores.moving import copy_records

    if source == target:
        raise InvalidArgumentError("STORE and TARGET are the same. Nothing was changed")
    to = keys(TARGET_KEY_VARIABLE if TARGET_KEY_VARIABLE in os.environ else KEY_VARIABLE) or []
    async with open_store(source) as read, open_store(target, IfMissing.MAKE, to) as written:
        _say_done(await copy_records(read, written), "copied", as_json=json)
    return DONE


def _say_done(count: int, what: str, *, as_json: bool) -> None:
    if as_json:
        print_rows([{what: count}], as_json=True)
    else:
        write(f"{count} records {what}\n")
