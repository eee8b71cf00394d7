"""Files of dumps: one appears whole or not at all, with a manifest beside it, and only its owner may read it."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
from collections.abc import Generator
from contextlib import contextmanager, suppress
from hashlib import file_digest
from pathlib import Path
from tempfile import TemporaryFile
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
    engine: str
    server: str  # its version
    program: str  # that made the dump, with its version
    date: str
    database_bytes: int
    bytes: int = 0
    sha256: str = ""


async def checked_folder(folder: str | os.PathLike[str]) -> Path:
    """Return the folder for dumps. Raises InvalidArgumentError if it is none."""
    if not isinstance(folder, str | os.PathLike) or not await asyncio.to_thread(os.path.isdir, folder):
        raise InvalidArgumentError(f"folder must be a folder that exists, not {folder!r}")
    return Path(os.fspath(folder))


def path_in(folder: Path, tenant: str, ending: str) -> Path:
    """The path of a tenant's file. Raises InvalidArgumentError if its name is no name of a file."""
    if tenant.startswith(".") or "/" in tenant or os.sep in tenant or not tenant.isprintable():
        raise InvalidArgumentError(f"the name {tenant!r} is not safe as the name of a file; nothing was sent")
    return folder / f"{tenant}{ending}"


@contextmanager
def nameless() -> Generator[IO[bytes]]:
    """A file without a name. So nothing is left of it, however this process ends."""
    with TemporaryFile() as file:
        yield file


@contextmanager
def whole(path: Path, manifest: Manifest) -> Generator[IO[bytes]]:
    """A file that gets its name after the block, with its manifest. If the block fails, nothing is left of it.

    An earlier dump is replaced: first its manifest goes, so no manifest describes another file.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with open(part, "xb", opener=_private) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        with part.open("rb") as file:
            done = evolve(manifest, bytes=part.stat().st_size, sha256=file_digest(file, "sha256").hexdigest())
        of_path = manifest_of(path)
        of_path.unlink(missing_ok=True)
        part.replace(path)
        _write(of_path, json.dumps(asdict(done), indent=2) + "\n")
        _sync(path.parent)
    finally:
        part.unlink(missing_ok=True)


def manifest_of(path: Path) -> Path:
    """The path of the manifest of a dump."""
    return path.with_suffix(".json")


def read(path: Path) -> tuple[Manifest, IO[bytes]]:
    """Open a dump, and check it by its manifest. Raises InvalidArgumentError if it is not what the manifest says.

    The open file is what was checked, whatever happens to its name.
    """
    of_path = manifest_of(path)
    try:
        with of_path.open("rb") as file:
            fields: Any = json.loads(file.read(_MOST))
        manifest = Manifest(**fields)
    except (OSError, ValueError, TypeError) as error:
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


def _write(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with open(part, "x", opener=_private, encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, mode=0o600)


def _sync(folder: Path) -> None:
    with suppress(OSError):  # a folder that cannot be opened for it
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def check_free(folder: Path, size: int) -> None:
    """Check that ``size`` bytes fit into the file system of ``folder``. Raises ConfigurationError."""
    system = os.statvfs(folder)
    if system.f_bavail * system.f_frsize < size:
        raise ConfigurationError(f"{folder} has too little free room for {size:,} bytes: free some, or set TMPDIR")
