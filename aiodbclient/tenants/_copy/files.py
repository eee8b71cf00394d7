"""Files of dumps: one appears whole or not at all, with a manifest beside it, and only its owner may read it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from hashlib import file_digest
from pathlib import Path
from typing import IO, Any

from attrs import asdict, evolve, frozen

from ...errors import ConfigurationError, InvalidArgumentError

_FORMAT = 1
_MOST = 65_536  # bytes of a manifest


@frozen(kw_only=True)
class Manifest:
    """What is known of a dump."""

    format: int = _FORMAT
    tenant: str
    database: str
    engine: str
    server: str  # its version
    program: str  # that made the dump, with its version
    date: str
    database_bytes: int
    bytes: int = 0
    sha256: str = ""


def checked_folder(folder: str | os.PathLike[str]) -> Path:
    """Return the folder for dumps. Raises InvalidArgumentError if it is none."""
    if not isinstance(folder, str | os.PathLike) or not os.path.isdir(folder):
        raise InvalidArgumentError(f"folder must be a folder that exists, not {folder!r}")
    return Path(os.fspath(folder))


def path_in(folder: Path, tenant: str, ending: str) -> Path:
    """The path of a tenant's file. Raises InvalidArgumentError if its name is no name of a file."""
    if tenant.startswith(".") or "/" in tenant or os.sep in tenant or not tenant.isprintable():
        raise InvalidArgumentError(f"the name {tenant!r} is not safe as the name of a file; nothing was sent")
    return folder / f"{tenant}{ending}"


@asynccontextmanager
async def whole(path: Path, manifest: Manifest) -> AsyncGenerator[IO[bytes]]:
    """A file that gets its name after the block, with its manifest. If the block fails, nothing is left of it.

    It replaces an earlier dump. Until both files are there, ``read`` refuses them.
    """
    part = _part_of(path)
    try:
        with await asyncio.to_thread(open, part, "xb", opener=_private) as file:
            yield file
            await asyncio.to_thread(_keep, file, path, manifest)
    finally:
        part.unlink(missing_ok=True)


def _keep(file: IO[bytes], path: Path, manifest: Manifest) -> None:
    file.flush()
    os.fsync(file.fileno())
    with open(file.name, "rb") as again:
        digest = file_digest(again, "sha256").hexdigest()
    manifest = evolve(manifest, bytes=os.path.getsize(file.name), sha256=digest)
    manifest_of(path).unlink(missing_ok=True)
    os.replace(file.name, path)
    part = _part_of(manifest_of(path))
    try:
        with open(part, "x", opener=_private, encoding="utf-8") as text:
            json.dump(asdict(manifest), text, indent=2)
            text.flush()
            os.fsync(text.fileno())
        part.replace(manifest_of(path))
    finally:
        part.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _part_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}")


def manifest_of(path: Path) -> Path:
    """The path of the manifest of a dump."""
    return path.with_suffix(".json")


def read(path: Path) -> tuple[Manifest, IO[bytes]]:
    """Open a dump, and check it by its manifest. Raises InvalidArgumentError if it is not what the manifest says.

    The open file is what was checked, whatever happens to its name.
    """
    of_path = manifest_of(path)
    for each in (of_path, path):
        if each.exists() and not each.is_file():  # a pipe or a device may have no end
            raise InvalidArgumentError(f"{each} is not a file; nothing was sent")
    try:
        with of_path.open("rb") as file:
            fields: Any = json.loads(file.read(_MOST))
        manifest = Manifest(**fields)
        if not all(isinstance(each, str) for each in (manifest.database, manifest.engine, manifest.server)):
            raise ValueError("its database, engine and server must be strings")
        if not re.match(r"\d+\.\d", manifest.server):
            raise ValueError(f"{manifest.server!r} is no version of a server")
    except FileNotFoundError:
        raise InvalidArgumentError(f"{path} is no dump: there is no {of_path}; nothing was sent") from None
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise InvalidArgumentError(f"{of_path} is not the manifest of a dump: {error}; nothing was sent") from None
    if manifest.format != _FORMAT:
        raise InvalidArgumentError(f"{of_path} has the format {manifest.format!r}: use a newer aiodbclient")
    try:
        file = path.open("rb")
    except OSError as error:
        raise InvalidArgumentError(f"{path} is unreadable: {error}; nothing was sent") from None
    try:
        if file_digest(file, "sha256").hexdigest() != manifest.sha256:
            raise InvalidArgumentError(f"{path} is not the file that {of_path.name} describes: its SHA-256 differs")
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return manifest, file


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, mode=0o600)


def check_free(folder: Path, size: int) -> None:
    """Check that ``size`` bytes fit into the file system of ``folder``. Raises ConfigurationError."""
    system = os.statvfs(folder)
    if system.f_bavail * system.f_frsize < size:
        raise ConfigurationError(f"{folder} has too little free room for {size:,} bytes: free some, or set TMPDIR")
