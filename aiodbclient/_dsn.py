"""Build the DSN for a driver, and look at the hosts of URLs. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from urllib.parse import SplitResult, parse_qsl, quote, urlsplit

from .engines import CAPABILITIES, MYSQL, POSTGRESQL, Engine
from .errors import InvalidArgumentError, UnsupportedOperationError

# In a URI they end the host, begin its options, name a second host or stand for another character.
_NEVER_IN_A_HOST = frozenset(" /@?&=#%,;\\'\"")


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
    protocol: str | None = None,
    ca_file: str | None = None,
) -> str:
    """Return the DSN of ``username`` on a cluster of ``engine``, as ``Connection.uri_for`` does."""
    if engine is None or engine not in CAPABILITIES:
        raise InvalidArgumentError(f"no DSN is known for the engine {engine!r}; build it from host and port")
    if not CAPABILITIES[engine].users:
        raise UnsupportedOperationError(f"uri_for: {engine} clusters have no users", engine=engine, operation="uri_for")
    if not host:
        raise InvalidArgumentError("this connection has no host (is the cluster still being created?)")
    if not is_host(host):
        raise InvalidArgumentError("the host of this connection is invalid")
    if ssl is False:
        ca_file = None  # there is no certificate to verify
    address = f"[{host}]" if ":" in host else host
    if port:
        address = f"{address}:{port}"
    is_registry = engine == Engine.KAFKA and (uri or "").startswith(("https://", "http://"))
    if engine == Engine.KAFKA and not is_registry:
        return address
    if password is None:
        raise InvalidArgumentError(
            f"the password of user {username!r} is unknown: the API returns it from create and reset_auth, and from "
            "get if the token has the scope database:view_credentials"
        )
    login = f"{quote(username, safe='')}:{quote(password, safe='')}"
    path = quote(database, safe="") if database else _split(uri).path.lstrip("/")
    # Unknown (None): the provider's servers have TLS.
    if engine in POSTGRESQL:
        # https://www.postgresql.org/docs/17/libpq-connect.html#LIBPQ-PARAMKEYWORDS
        options = {"sslmode": "disable" if ssl is False else "require"}
        if ca_file is not None:
            options = {"sslmode": "verify-full", "sslrootcert": ca_file}
        return f"postgresql://{login}@{address}/{path}{_query(options)}"
    if engine in MYSQL:
        # https://dev.mysql.com/doc/refman/8.4/en/connecting-using-uri-or-key-value-pairs.html
        options = {"ssl-mode": "DISABLED" if ssl is False else "REQUIRED"}
        if ca_file is not None:
            options = {"ssl-mode": "VERIFY_IDENTITY", "ssl-ca": ca_file}
        return f"mysql://{login}@{address}/{path}{_query(options)}"
    if engine == Engine.OPENSEARCH or is_registry:
        return f"{'http' if ssl is False else 'https'}://{login}@{address}"
    return _mongodb(login, host, address, path or "admin", _split(uri), ssl=ssl, protocol=protocol, ca_file=ca_file)


def is_host(text: str | None) -> bool:
    """Whether ``text`` can be the name or address of a host. For other texts Python's sockets raise UnicodeError."""
    if not text or not text.isprintable() or not _NEVER_IN_A_HOST.isdisjoint(text):
        return False
    try:
        text.encode("idna")
    except UnicodeError:
        return False
    return True


def is_loopback(host: str | None) -> bool:
    """Whether ``host`` is this machine's loopback."""
    try:
        return host == "localhost" or ip_address(host or "").is_loopback
    except ValueError:
        return False


def has_late_at(url: str) -> bool:
    """Whether ``url`` has an ``@`` after its host. Raises ValueError if it is not a URL."""
    # If a password has an ``@`` and then an unescaped ``/``, ``?`` or ``#``, a part of it becomes the host, and the
    # ``@`` that was to end the password comes later. The value of an option may have an ``@``.
    parts = urlsplit(url)
    return "@" in parts.path + parts.query.partition("=")[0] + parts.fragment


def mysql_parts(url: str) -> SplitResult | None:
    """Return the parts of ``url`` if it names a MySQL server, with its host, a valid port if any, and a user."""
    try:
        parts, late = urlsplit(url), has_late_at(url)
        is_mysql = parts.scheme == "mysql" and (parts.port is None or parts.port > 0)
        if is_mysql and is_host(parts.hostname) and parts.username and not late:
            return parts
    except ValueError:  # its message may quote the password
        pass
    return None


def _mongodb(
    login: str,
    host: str,
    address: str,
    path: str,
    template: SplitResult,
    *,
    ssl: bool | None,
    protocol: str | None,
    ca_file: str | None,
) -> str:
    options = {"tlsCAFile": ca_file} if ca_file is not None else {}
    if template.scheme.startswith("mongodb"):
        # Only the provider's own URI has the replica set.
        given = dict(parse_qsl(template.query))
        if ca_file is not None and template.scheme == "mongodb":  # mongodb+srv implies TLS
            options = {"tls": "true"} | options
        address = template.netloc.rpartition("@")[2]
        return f"{template.scheme}://{login}@{address}/{path}{_query(given | options)}"
    options = {"authSource": "admin"} | ({} if ssl is False else {"tls": "true"}) | options
    if protocol == "mongodb+srv":
        return f"mongodb+srv://{login}@{host}/{path}{_query(options)}"  # an SRV name has no port
    return f"mongodb://{login}@{address}/{path}{_query(options)}"


def _query(options: Mapping[str, str]) -> str:
    # Not urlencode: libpq and pymongo do not decode a plus sign to a space.
    return "?" + "&".join([f"{name}={quote(value, safe='/')}" for name, value in options.items()]) if options else ""


def _split(uri: str | None) -> SplitResult:
    try:
        return urlsplit(uri or "")
    except ValueError:
        return urlsplit("")
