"""Change from root to the user ``nobody``. PostgreSQL refuses to run as root, and root must not write files here.

Where ``nobody`` may not run the wheel's PostgreSQL, root packs it into an unnamed file, and ``nobody`` unpacks it.
"""

from __future__ import annotations

import os
import pwd
import tarfile
import tempfile
from pathlib import Path
from typing import IO


def become_nobody() -> None:
    """If this process is root, become ``nobody`` for good."""
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        os.setgroups([])
        os.setgid(nobody.pw_gid)
        os.setuid(nobody.pw_uid)


def packed(binaries: Path) -> IO[bytes] | None:
    """If this process is root, and ``nobody`` may not run the programs in ``binaries``, an archive with them."""
    if os.geteuid() != 0:
        return None
    nobody = pwd.getpwnam("nobody")
    os.setgroups([])
    os.setegid(nobody.pw_gid)
    os.seteuid(nobody.pw_uid)
    readable = os.access(binaries / "postgres", os.R_OK | os.X_OK, effective_ids=True)
    os.seteuid(0)
    os.setegid(0)
    if readable:
        return None
    package = binaries.parents[1]
    libraries = package.with_name(f"{package.name}.libs")  # the programs load these by a relative path
    file = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    with tarfile.open(fileobj=file, mode="w") as archive:
        for folder in filter(Path.exists, (binaries.parent, libraries)):
            archive.add(folder, folder.relative_to(package.parent))
    file.seek(0)
    return file


def unpack(file: IO[bytes], binaries: Path, target: Path) -> Path:
    """Write the files of ``packed`` to the folder ``target``, and return the folder of programs in it."""
    try:
        with file, tarfile.open(fileobj=file) as members:
            # Pythons from 3.11.4 on know filters, and some of them warn if none is named.
            members.extraction_filter = getattr(tarfile, "data_filter", lambda member, _: member)
            members.extractall(target)
    except tarfile.TarError as error:
        raise OSError(f"PostgreSQL cannot be copied to {target}: {error}") from None
    return target / binaries.relative_to(binaries.parents[2])
