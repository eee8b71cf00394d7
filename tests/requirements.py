"""Requirements of some tests besides Python packages: servers, the provider's API description, and a fast folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NoReturn

import pytest

from aiodbclient.sandbox import _embedded as embedded

# In memory, if there is room for the servers of four workers: a store waits until the disk has each change, a
# PostgreSQL writes 30 MB when it first starts, and a MySQL 200.
_MEMORY, _ROOM = "/dev/shm", 4 << 30
_fits = embedded.has_space(_MEMORY) and shutil.disk_usage(_MEMORY).free >= _ROOM
ROOMY = _MEMORY if _fits else tempfile.gettempdir()
DESCRIPTION = Path(os.environ.get("AIODBCLIENT_SPEC") or Path(__file__).parents[2] / "shared" / "spec")

# Where .ci/mysql installs the server and its client programs.
if (_programs := Path("/var/lib/aiodbclient-mysql/bin")).exists():
    os.environ["PATH"] = f"{_programs}:{os.environ['PATH']}"


def _no_mysql() -> str:
    """Why there is no MySQL for the tests, in one line; empty if there is one."""
    if "AIODBCLIENT_MYSQL_DSN" in os.environ:
        return ""
    if (mysqld := shutil.which("mysqld")) is not None:
        version = subprocess.run([mysqld, "--no-defaults", "--version"], capture_output=True, text=True).stdout
        if version and "MariaDB" not in version:
            return ""
    return "There is no MySQL: .ci/mysql installs one, and AIODBCLIENT_MYSQL_DSN names another."


NO_MYSQL = _no_mysql()


def no_server(server: str, why: str) -> NoReturn:
    """Skip the test, or fail it if ``AIODBCLIENT_REQUIRE_SERVERS`` lists the server or is ``all``."""
    required = os.environ.get("AIODBCLIENT_REQUIRE_SERVERS", "").split(",")
    if server in required or "all" in required:
        pytest.fail(why)
    pytest.skip(why)


def postgres_with_tls() -> Path:
    """The folder of the newest installed PostgreSQL's programs. Those of the wheel have no TLS."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda file: float(file.parts[-3]))
    if not found:
        no_server("postgres", "there is no PostgreSQL with TLS: apt-get install postgresql")
    return found[-1].parent


def description(name: str) -> Path:
    """Return the file ``name`` of the provider's API description.

    It is in ``AIODBCLIENT_SPEC``, a folder or the path of ``databases.openapi.yaml``, or in ``../shared/spec``. Mark
    tests that need it with ``described``: they are skipped without it, and fail if ``AIODBCLIENT_REQUIRE_SPEC=1``.
    CONTRIBUTING.md says where to get it.
    """
    path = (DESCRIPTION if DESCRIPTION.is_dir() else DESCRIPTION.parent) / name
    if not path.exists():
        pytest.fail(f"the API description is not at {path}; set AIODBCLIENT_SPEC")
    return path


def no_description() -> str:
    """The reason why tests of the API description are skipped, in one line; empty if they are not."""
    if DESCRIPTION.exists() or os.environ.get("AIODBCLIENT_REQUIRE_SPEC") == "1":
        return ""
    return (
        f"Left out: the tests against the API description. It is not at {DESCRIPTION}; set AIODBCLIENT_SPEC. "
        "CONTRIBUTING.md says where to get it."
    )
