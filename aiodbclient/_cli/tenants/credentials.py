"""A credential in the forms that programs take: a URI, environment variables, a Secret of Kubernetes."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...engines import POSTGRESQL
from ...errors import InvalidArgumentError
from ..plumbing.files import read_text

if TYPE_CHECKING:
    from ...tenants import Credential, Login

_LONGEST = 40  # characters of a tenant's name in that of its Secret


def uri_of(credential: Credential, ca_file: str | None) -> str:
    """The URI, which makes the driver verify the server if there is a ``ca_file`` and the cluster uses TLS."""
    if ca_file is None or credential.ca is None:
        return credential.uri
    return credential.uri_for(ca_file=ca_file)


def environment_of(credential: Credential, ca_file: str | None) -> dict[str, str]:
    """The environment variables of a program that uses the credential, and with a CA file verifies the server."""
    variables = credential.env()
    if ca_file is None or credential.ca is None:
        return variables
    variables["DATABASE_URL"] = credential.uri_for(ca_file=ca_file)
    if credential.engine in POSTGRESQL:
        return variables | {"PGSSLMODE": "verify-full", "PGSSLROOTCERT": ca_file}
    return variables | {"MYSQL_SSL_MODE": "VERIFY_IDENTITY", "MYSQL_SSL_CA": ca_file}


def as_env_file(credential: Credential, ca_file: str | None) -> str:
    """Lines for ``docker run --env-file``, which takes each value as it is."""
    return "".join(f"{name}={value}\n" for name, value in environment_of(credential, ca_file).items())


def as_secret(credential: Credential, ca_file: str | None, name: str | None, namespace: str | None) -> str:
    """A Secret of Kubernetes, as YAML, with the CA as ``ca.crt``."""
    import yaml  # slow to import, and not needed for help

    data = environment_of(credential, ca_file) | ({} if credential.ca is None else {"ca.crt": credential.ca})
    metadata = {"name": name or _secret_name(credential)} | ({} if namespace is None else {"namespace": namespace})
    encoded = {key: b64encode(value.encode()).decode() for key, value in data.items()}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque", "data": encoded}
    return yaml.safe_dump(secret, sort_keys=False)


def _secret_name(credential: Credential) -> str:
    """A name that no other login has, whatever letters Kubernetes allows: it ends with a digest of what names it."""
    whole = json.dumps([credential.name, credential.role.value, credential.cluster])
    digest = blake2b(whole.encode(), digest_size=8).hexdigest()
    readable = re.sub(r"[^a-z0-9]+", "-", credential.name.lower())[:_LONGEST].strip("-")
    return f"{readable or 'tenant'}-{digest}"


def created_at(login: Login | Credential | None) -> str | None:
    """When a login was created, to the second."""
    return None if login is None else login.created.isoformat(timespec="seconds")


def row_of(credential: Credential, ca_file: str | None, *, show: bool, as_object: bool) -> dict[str, Any]:
    """The credential as a row of a table or the members of a JSON object, with secrets only if ``show``."""
    row: dict[str, Any] = {
        "name": credential.name,
        "role": credential.role.value,
        "username": credential.username,
        "database": credential.database,
        "engine": credential.engine,
        "port": credential.port,
        "host": credential.host,
    }
    if as_object:
        row |= {
            "cluster": credential.cluster,
            "cluster_name": credential.cluster_name,
            "created": created_at(credential),
        }
    if show:
        row |= {"password": credential.password, "uri": uri_of(credential, ca_file)}
        if as_object:
            row["ca"] = credential.ca
    return row


def lines_of(credential: Credential) -> str:
    """The credential with its secrets, as a line ``name: value`` for each."""
    row = row_of(credential, None, show=True, as_object=False)
    return "".join(f"{name}: {value if isinstance(value, str) else json.dumps(value)}\n" for name, value in row.items())


def write_ca(credential: Credential, ca_file: Path) -> None:
    """Write the CA of the cluster into ``ca_file``, unless it is there already."""
    if credential.ca is None:
        raise InvalidArgumentError(f"--ca-file: the cluster of {credential.name!r} does not use TLS, so it has no CA")
    if not ca_file.exists():
        with open(ca_file, "x") as made:  # "x" follows no link
            made.write(credential.ca)
    elif read_text(ca_file).strip() != credential.ca.strip():
        raise InvalidArgumentError(f"--ca-file: {ca_file} exists, and is not the CA of the cluster")
