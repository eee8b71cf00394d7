"""Root becomes nobody, for PostgreSQL refuses root, and so that root writes nothing here."""

from __future__ import annotations

import os
import pwd
from pathlib import Path


def become_nobody(binaries: Path) -> bool:
    """Become nobody, for good, where we are root; go to the folder of ``binaries``' package either way.

    Returns whether PostgreSQL can be run where it is. Where nobody may not go there, as into root's home, it can still
    be read from the folder that we are in then.
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
