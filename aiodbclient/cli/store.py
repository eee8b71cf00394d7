"""The commands ``aiodbclient store``: what is done with a store as a whole."""

from __future__ import annotations

from typing import Annotated

import typer

from ..errors import ConfigurationError
from ..tenants.naming import tenant_of
from .arguments import JsonOption
from .help import Command, group
from .output import print_rows, write
from .running import DONE, reads
from .stores import check_exists, keys, make_store

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
    """List the records of a store, of whatever cluster. Sends nothing to the API.

    Example: aiodbclient store list tenants.db
    """
    check_exists(store)
    async with make_store(store, keys()) as opened:
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
