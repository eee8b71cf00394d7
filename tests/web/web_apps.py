"""The example apps, adapted for the server process of a load test.

They differ from the examples in two ways. Their client is not paced, so that the load tests the app and not the rate
limit. And the process writes a line to the file LOAD_TEST_COUNTS for each client and session that it creates.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

import signups
from aiodbclient import DatabaseClient, RateLimiter


def _count(kind: type) -> None:
    make = kind.__init__  # type: ignore[misc]

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        with open(os.environ["LOAD_TEST_COUNTS"], "a") as counts:
            counts.write(f"{kind.__name__}\n")
        make(self, *args, **kwargs)

    kind.__init__ = __init__  # type: ignore[misc]


class _Unpaced(DatabaseClient):
    def __init__(self, max_wait: float) -> None:
        super().__init__(rate_limiter=RateLimiter([]), max_wait=max_wait)


signups.DatabaseClient = _Unpaced  # type: ignore[attr-defined, assignment]
_count(DatabaseClient)
_count(aiohttp.ClientSession)


def fastapi() -> object:
    import fastapi_app

    return fastapi_app.app


def litestar() -> object:
    import litestar_app

    return litestar_app.app


def aiohttp_app() -> web.Application:
    import aiohttp_app

    return aiohttp_app.create_app()


if __name__ == "__main__":
    web.run_app(aiohttp_app(), host="127.0.0.1", port=int(sys.argv[1]), print=None)
