"""What some tests need beyond Python packages: servers, and the provider's API description."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

import pytest


def no_server(server: str, why: str) -> NoReturn:
    """Skip the test, or fail it where CI requires the server.

    ``AIODBCLIENT_REQUIRE_SERVERS`` lists those that are required, like ``mysql,valkey``; ``all`` stands for each.
    """
    required = os.environ.get("AIODBCLIENT_REQUIRE_SERVERS", "").split(",")
    if server in required or "all" in required:
        pytest.fail(why)
    pytest.skip(why)


def description(name: str) -> Path:
    """The file ``name`` of the provider's API description.

    It is looked for in ``AIODBCLIENT_SPEC``, a folder or the path of ``databases.openapi.yaml``, or else in
    ``../shared/spec``. Without it the test is skipped, or fails where CI requires it (``AIODBCLIENT_REQUIRE_SPEC=1``).
    """
    given = Path(os.environ.get("AIODBCLIENT_SPEC") or Path(__file__).parents[2] / "shared" / "spec")
    path = (given if given.is_dir() else given.parent) / name
    if not path.exists():
        why = f"the API description is not at {path}; say where it is with AIODBCLIENT_SPEC"
        if os.environ.get("AIODBCLIENT_REQUIRE_SPEC") == "1":
            pytest.fail(why)
        pytest.skip(why)
    return path
