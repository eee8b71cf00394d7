"""From the parts of a connection to the DSN that a driver takes. Pure."""

from __future__ import annotations

from urllib.parse import SplitResult, quote, urlsplit

from .engines import CAPABILITIES, Engine
from .errors import InvalidArgumentError, UnsupportedOperationError

_POSTGRESQL = frozenset({Engine.PG, Engine.ADVANCED_PG})
_MYSQL = frozenset({Engine.MYSQL, Engine.ADVANCED_MYSQL})


def dsn(
    *,
    engine: str | None,
    host: str | None,
    port: int | None,
    ssl: bool | None,
    uri: str | None,
    username: str,
    password: str | None,
    database: str | None,
    ca_file: str | None = None,
) -> str:
    """The DSN of ``username`` on a cluster of ``engine``. Raises as ``Connection.uri_for`` says.

    With ``ca_file`` the driver verifies the server by the CA in that file, where a URI of the engine can say so.
    """
    if engine is None or engine not in CAPABILITIES:
        raise InvalidArgumentError(f"no DSN is known for the engine {engine!r}; build it from host and port")
    if not CAPABILITIES[engine].users:
        raise UnsupportedOperationError(f"uri_for: {engine} clusters have no users", engine=engine, operation="uri_for")
    if not host:
        raise InvalidArgumentError("this connection has no host (is the cluster still being created?)")
    address = f"[{host}]" if ":" in host else host
    if port:
        address = f"{address}:{port}"
    if engine == Engine.KAFKA:
        return address
    if password is None:
        raise InvalidArgumentError(
            f"the password of user {username!r} is not known here: the API tells it in the answers to create and "
            "reset_auth, and on get to a token with the database:view_credentials scope"
        )
    login = f"{quote(username, safe='')}:{quote(password, safe='')}"
    template = _split(uri)
    path = quote(database, safe="") if database else template.path.lstrip("/")
    ca = None if ca_file is None else quote(ca_file)
    if engine in _POSTGRESQL:
        tls = "?sslmode=require" if ca is None else f"?sslmode=verify-full&sslrootcert={ca}"
        return f"postgresql://{login}@{address}/{path}{tls if ssl else ''}"
    if engine in _MYSQL:
        tls = "?ssl-mode=REQUIRED" if ca is None else f"?ssl-mode=VERIFY_IDENTITY&ssl-ca={ca}"
        return f"mysql://{login}@{address}/{path}{tls if ssl else ''}"
    if engine == Engine.OPENSEARCH:
        return f"{'http' if ssl is False else 'https'}://{login}@{address}"
    if template.scheme.startswith("mongodb"):
        # Only the provider's own URI tells the replica set, and whether the host is an SRV name, which takes no port.
        address = template.netloc.rpartition("@")[2]
        query = "&".join(filter(None, [template.query, ca and f"tlsCAFile={ca}"]))
        return f"{template.scheme}://{login}@{address}/{path or 'admin'}{query and f'?{query}'}"
    tls = "&tls=true" if ca is None else f"&tls=true&tlsCAFile={ca}"
    return f"mongodb://{login}@{address}/{path or 'admin'}?authSource=admin{tls if ssl else ''}"


def _split(uri: str | None) -> SplitResult:
    try:
        return urlsplit(uri or "")
    except ValueError:
        return urlsplit("")
