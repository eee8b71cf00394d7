"""What ``doctor`` looks at in a store: whether it can be read and written, and whose tenants it has."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from tempfile import NamedTemporaryFile

from ..errors import ConfigurationError, InvalidArgumentError, StoreError
from ..tenants import Store
from .doctor_findings import Findings
from .stores import KEY_VARIABLE, has_no_folder, is_missing, is_postgresql, keys, open_store, shown

_ROOM = bytes(1 << 16)  # a new store needs less


async def check_store(findings: Findings, where: str, cluster_id: str) -> None:
    """Whether the store can be opened and written, its key fits, and how many of its tenants are of other clusters."""
    try:
        encrypted = "encrypted" if keys() else f"not encrypted: set ${KEY_VARIABLE} to encrypt a new one"
    except (InvalidArgumentError, ConfigurationError) as error:
        findings.fail("store", error, f"set ${KEY_VARIABLE} to what `aiodbclient store keygen` prints")
        return
    if has_no_folder(where):
        findings.fail("store", f"the folder of {where} does not exist", "create it, or use another --store")
        return
    try:
        if is_missing(where):
            _write_beside(Path(where))
            findings.ok("store", f"{where} does not exist yet and will be created, {encrypted}")
            return
        if is_postgresql(where) and await _has_no_table(where):
            findings.ok("store", f"{shown(where)} does not exist yet and will be created, {encrypted}")
            return
        async with open_store(where) as store:
            found = [record.current.cluster if record.current else None async for record in store.records()]
            await _write(store)
    except OSError as error:
        findings.fail("store", f"{where} cannot be created: {error.strerror}", "make its folder writable, with room")
    except (StoreError, ConfigurationError) as error:
        findings.fail("store", error, f"check --store, its rights and ${KEY_VARIABLE}")
    else:
        others = sum(each not in (None, cluster_id) for each in found)
        records = f"{len(found)} records{f', {others} of them of other clusters' if others else ''}"
        findings.ok("store", f"{shown(where)} can be read and written, {records}, {encrypted}")


def _write_beside(path: Path) -> None:
    """Write a file into the folder of a store that does not exist yet, and remove it. Raises OSError."""
    with NamedTemporaryFile(dir=path.absolute().parent, prefix=".aiodbclient-doctor-") as file:
        file.write(_ROOM)
        file.flush()
        os.fsync(file.fileno())


async def _has_no_table(where: str) -> bool:
    """Whether a store in PostgreSQL has no table yet. Then its role can create it, or this raises StoreError."""
    from psycopg import AsyncConnection, Error

    from .._libpq import one_line

    try:
        async with await AsyncConnection.connect(where, connect_timeout=10) as connection:
            row = await (await connection.execute("SELECT to_regclass('aiodbclient_credentials')")).fetchone()
            if row is None or row[0] is not None:
                return False
            await connection.execute("CREATE TABLE aiodbclient_credentials (name text)")
            await connection.rollback()
            return True
    except Error as error:
        reason = one_line(error)
    raise StoreError(f"the store in PostgreSQL cannot be used: {reason}")


async def _write(store: Store) -> None:
    """Make a record, change it and remove it. Raises StoreError."""
    claim = await store.claim(f"doctor-{secrets.token_hex(8)}", 60.0)
    if claim is None:
        raise StoreError("it does not give a claim on a new name")
    try:
        await store.intend(claim, "doctor")
    finally:
        await store.forget(claim)
