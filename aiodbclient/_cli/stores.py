"""The store that an operator means."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal, TypeAlias
from urllib.parse import urlsplit

from ..errors import InvalidArgumentError, StoreError
from ..tenants._record import OnRecord, read_all
from ..tenants._stores import readable
from ..tenants._stores.base import BaseStore
from ..tenants._stores.sealing import Seal
from .arguments import STORE_VARIABLE
from .output import NAME, command_line, note, quoted

if TYPE_CHECKING:
    from ..tenants import Store

KEY_VARIABLE = "AIODBCLIENT_STORE_KEY"
TARGET_KEY_VARIABLE = "AIODBCLIENT_STORE_KEY_TO"
ENTRY_POINTS = "aiodbclient.stores"
_POSTGRESQL = ("postgresql", "postgres")
_NO_TABLE = "SQLSTATE 42P01"
BACKUP, MOVED = "is a backup of", "was moved to"  # why a store refuses changes


# What happens to a store that does not exist. "empty": it counts as an empty one, and is not created.
IfMissing: TypeAlias = Literal["fail", "make", "empty"]


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
    where: str,
    if_missing: IfMissing = "fail",
    key: list[str] | None = None,
    called: str = "--store",
    *,
    reads: bool = False,
    on_backups: bool = False,
) -> AsyncGenerator[Store]:
    """Open the store. Says so if other users could read its passwords.

    One that refuses changes is only opened for a command that ``reads``, which says so. A backup is also opened for one
    that works ``on_backups``.
    """
    if not where:
        raise InvalidArgumentError(f"{called} is empty: give a file or a URL. Nothing was sent")
    async with AsyncExitStack() as stack:
        opened: Store | None = None
        key = keys() if key is None else (key or None)
        store = _store(where, key, make=if_missing == "make")
        mode = _mode(where)
        if if_missing == "make" and key is None and is_missing(where):
            path = Path(where)
            encrypted = path.with_name(f"{path.stem}-encrypted{path.suffix}")
            file = quoted(str(path.with_name(f"{path.stem}.key")))
            copy = command_line(["store", "copy", where, str(encrypted), *(["--backup"] if on_backups else [])])
            note(
                f"the new store {where} holds passwords as plain text. To encrypt it: export {TARGET_KEY_VARIABLE}="
                f"$(umask 077; {NAME} store keygen | tee {file}); {copy}. Then use the copy with the key in {file} as "
                f"${KEY_VARIABLE}, and keep that file: the copy is unreadable without it"
            )
        if if_missing == "make" or not is_missing(where):
            try:
                opened = await stack.enter_async_context(store)
            except StoreError as error:
                if _NO_TABLE not in str(error):
                    raise
        if opened is None and if_missing == "empty":
            note(f"{shown(where)} does not exist yet: provisioning creates it")
            folder = stack.enter_context(TemporaryDirectory())
            opened = await stack.enter_async_context(_store(f"{folder}/nothing.db", None, make=True))
        if opened is None:
            raise StoreError(
                f"{shown(where)} does not exist: check {called}. Only provisioning and `store copy` create a store"
            )
        if mode & 0o044 and key is None:
            rotate = command_line(["tenants", "rotate", "--all", "--store", where, *await clusters_in(opened)])
            note(
                f"other users of this machine could read {where} (mode {mode:o}), and the passwords in it. Now they "
                f"cannot. To replace the passwords, do this and then retire: {rotate}"
            )
        why = await refusal(opened)
        if why is not None and on_backups and why.startswith(BACKUP) and isinstance(opened, BaseStore):
            await opened.ignore_refusal()
        elif why is not None and reads:
            note(f"{shown(where)} {why}: use that one. What this one says may be old, and it takes no change")
        elif why is not None:
            restore = command_line(["store", "copy", where, "restored.db", "--restore"])
            lost = f". If that one is lost: {restore}" if why.startswith(BACKUP) else ""
            raise StoreError(f"{shown(where)} {why}: use that one{lost}. Nothing was changed")
        yield opened


@asynccontextmanager
async def open_known(where: str | None) -> AsyncGenerator[Store | None]:
    """Open the store whose tenants a command on users or databases leaves alone. None if none is named.

    One that does not exist is a mistake, such as $AIODBCLIENT_STORE in another folder, and not one without tenants.
    """
    if where is None:
        yield None
        return
    async with open_store(where, called=f"--store or ${STORE_VARIABLE}", reads=True) as opened:
        yield opened


def home_of(record: OnRecord) -> str | None:
    """What the options of a command call the cluster of a tenant: its name, or its id where no credential has it."""
    credential = record.current or record.previous
    return record.cluster if credential is None else credential.cluster_name or credential.cluster


async def clusters_in(store: Store) -> list[str]:
    """The options of a command on all clusters of a store."""
    homes = {home: None async for record in readable(read_all(store)) if (home := home_of(record))}
    return [word for each in homes for word in ("--cluster", each)]


async def refusal(store: Store) -> str | None:
    """Why a store refuses changes; None if it does not, or has no way to."""
    return await store.refusal() if isinstance(store, BaseStore) else None


def _store(where: str, key: list[str] | None, *, make: bool) -> Store:
    scheme = _scheme_of(where)
    if scheme is None:
        from ..tenants import SQLiteStore

        return SQLiteStore(where, key=key)
    if scheme in _POSTGRESQL:
        from ..tenants import PostgresStore

        return PostgresStore(where, key=key, make=make)
    from importlib.metadata import entry_points

    found = entry_points(group=ENTRY_POINTS, name=scheme)
    if not found:
        others = "".join(f", {name}://" for name in sorted(entry_points(group=ENTRY_POINTS).names))
        raise InvalidArgumentError(
            f"--store {scheme}://... is not supported. It takes a file, postgresql://{others}; another package can add "
            f"stores by entry points of the group {ENTRY_POINTS}"
        )
    load: Callable[[str, list[str] | None], Store] = next(iter(found)).load()
    return load(where, key)


def absolute(where: str) -> str:
    """The store as another working directory names it."""
    return os.path.abspath(where) if is_file(where) else where


def backed_up(why: str) -> str | None:
    """The file that was backed up, by the reason ``why`` its backup refuses changes; None if it was a PostgreSQL."""
    path = why.removeprefix(f"{BACKUP} {shown('')}")
    return None if path == why else path


def _mode(where: str) -> int:
    """The rights on the file of a store; 0 if it is no file."""
    path = Path(where)
    return path.stat().st_mode & 0o777 if is_file(where) and path.is_file() else 0


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
