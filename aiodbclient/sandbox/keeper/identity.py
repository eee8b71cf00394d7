"""Change from root to the user ``nobody``. PostgreSQL refuses to run as root, and root must not write files here."""

from __future__ import annotations

import os
import pwd
from pathlib import Path


def become_nobody(binaries: Path) -> bool:
    """Change to the package folder of ``binaries``. If this process is root, become ``nobody`` for good.

    Returns:
        Whether PostgreSQL can run where it is installed. If ``nobody`` has no access to that path, as in root's home,
        this is False; PostgreSQL can still be read by a path relative to the working folder.
    """
    os.chdir(binaries.parent.parent.parent)
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        os.setgroups([])
        os.setgid(nobody.pw_gid)
        os.setuid(nobody.pw_uid)
    try:
        binaries.stat()
    except PermissionError:
        return False
    return True
