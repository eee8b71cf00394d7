"""An API like the provider's on this machine, for tests and for trying things out.

``Sandbox`` implements the provider's API for clusters (reads, and the CA), users and dbs. It does not use the client.

Where the API description is silent, the sandbox decides:
    A create with a taken name is a 422, as for a connection pool (terraform-provider-digitalocean #925). Users and dbs
    of Redis and Valkey are a 422 "operation is not supported for this cluster type" (terraformer #1905).
    Settings of another engine are checked, then ignored. The primary user, MongoDB's ``do-readonly`` and its db
    ``admin``, and a PostgreSQL database that is a template cannot be deleted (422).
    A cluster that is not online can be read but not written (412).

Where it differs from the provider:
    Only ``add_cluster`` creates clusters. They are online at once unless you pass ``online_after``.
    A list has a single page. A user or db is visible as soon as the answer to its create is sent. Both can be different
    with a fault's ``change``.
    The host name of a cluster in memory does not resolve. The embedded PostgreSQL has no TLS.
    On MySQL, ``doadmin`` and the users may also write in the server's own schemas.
    Kafka's certificate and key are random. An ACL grants nothing, because there is no Kafka server.
    Requests without a valid token count towards no rate limit.
"""

from __future__ import annotations

from ._embedded import warm_servers
from ._faults import Fault, Faults
from ._protocol import Answer, RecordedRequest
from ._sandbox import Sandbox

__all__ = ["Answer", "Fault", "Faults", "RecordedRequest", "Sandbox", "warm_servers"]
