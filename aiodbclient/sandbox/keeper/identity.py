"""Change from root to the user nobody: PostgreSQL does not run as root, and root is to write nothing here."""

from __future__ import annotations

import os
import pwd
from pathlib import Path


def become_nobody(binaries: Path) -> bool:
    """If this process is root, become nobody for good. Change to the folder of the package of ``binaries``.

    Returns:
        Whether PostgreSQL can be run where it is. If not, because nobody may not go there (root's home is such a
        place), it can still be read from the folder that the process is in now.
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
