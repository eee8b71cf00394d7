"""A PostgreSQL that can be stopped and started again, with what it holds."""

from __future__ import annotations

import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from aiodbclient.sandbox import keeper
from aiodbclient.sandbox.embedded import SUPERUSER, binaries


class RestartablePostgres:
    """The embedded one, on one port for good. ``dsn`` is its superuser's."""

    def __init__(self) -> None:
        found = binaries()
        assert found is not None
        self._base = Path(tempfile.mkdtemp(prefix="aiodbclient-"))
        self._identity = keeper._identity(self._base)
        self._binaries = keeper._reachable(found, self._base, self._identity)
        password = secrets.token_hex(8)
        keeper._initialise(self._binaries, self._base, SUPERUSER, password, self._identity)
        self._server: subprocess.Popen[bytes] | None
        self._server, self._port = keeper._start(self._binaries, self._base, self._identity)
        self.dsn = f"postgresql://{SUPERUSER}:{password}@127.0.0.1:{self._port}/postgres"

    def stop(self) -> None:
        """Break every connection at once, as a crash does."""
        if self._server is not None:
            self._server.send_signal(signal.SIGQUIT)
            self._server.wait()
            self._server = None

    def start(self) -> None:
        command = [f"{self._binaries}/postgres", "-D", f"{self._base}/data", "-p", f"{self._port}"]
        command += [f"--{name}={value}" for name, value in keeper.SETTINGS.items()]
        self._server = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self._base,
            process_group=0,
            **self._identity,
        )
        while not keeper._ready(self._base / "data" / "postmaster.pid"):
            assert self._server.poll() is None
            time.sleep(0.01)

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self._base, ignore_errors=True)
