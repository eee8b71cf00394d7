"""An API of the same shape on loopback, for tests and for trying things out.

``Sandbox`` answers what the provider's API answers for clusters (read), users and dbs. Nothing here imports the client.

Where the API description is silent, the sandbox decides:
    A name that exists is a 422 "user name is not available", as the provider says of a connection pool
    (terraform-provider-digitalocean #925); users and dbs of Redis and Valkey are a 422 "operation is not supported for
    this cluster type", as it says of the pools of a MySQL cluster (terraformer #1905).
    Settings of another engine are checked, then ignored. The primary user cannot be deleted (422).

Where it differs from the provider:
    A cluster is online at once, and clusters can be made only with ``add_cluster``; no request creates or destroys one.
    In memory, a cluster's host name leads nowhere. The embedded PostgreSQL has its TLS in front, in a process of its
    own: the server itself sees local connections (``pg_stat_ssl`` has none), and offers no SCRAM channel binding.
    On MySQL, ``doadmin`` and the users may also write in the server's own schemas. MariaDB knows only
    ``mysql_native_password``.
    Kafka's certificate and key have the form of PEM but are random; an ACL grants nothing, for nothing is there.
    Requests without a valid token count nowhere.
"""

from __future__ import annotations

from .faults import Fault, Faults
from .records import RecordedRequest
from .sandbox import Sandbox

__all__ = ["Fault", "Faults", "RecordedRequest", "Sandbox"]
