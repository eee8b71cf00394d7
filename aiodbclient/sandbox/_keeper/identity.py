"""Change from root to the user ``nobody``. PostgreSQL refuses to run as root, and root must not write files here."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

from .archive import Archive


def become_nobody(binaries: Path) -> Archive | None:
    """If this process is root, become ``nobody`` for good.

    Args:
        binaries: The folder of PostgreSQL's programs.

    Returns:
        None if PostgreSQL can run where it is installed. Otherwise an archive of it, to unpack where ``nobody`` may
        write: ``nobody`` may not read the installation if it is in root's home, or if root made it with ``umask 077``.
    """
    if os.geteuid() != 0:
        return None
    nobody = pwd.getpwnam("nobody")
    os.setgroups([])
    os.setegid(nobody.pw_gid)
    os.seteuid(nobody.pw_uid)
    readable = os.access(binaries / "postgres", os.R_OK | os.X_OK, effective_ids=True)
    os.seteuid(0)
    archive = None if readable else Archive(binaries)
    os.setgid(nobody.pw_gid)
    os.setuid(nobody.pw_uid)
    return archive
