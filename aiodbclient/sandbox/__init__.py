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
    It serves only requests whose Host is this machine's loopback or listed in ``allow_hosts``. Others get a 421, so
    that no web page reaches it by DNS rebinding.
    A list has a single page unless you pass ``page_size``. A user or db is visible as soon as the answer to its create
    is sent; ``faults`` can delay that, as the provider sometimes does.
    The host name of a cluster in memory does not resolve. The embedded PostgreSQL has its TLS in a process in front of
    it, where ``stop_database`` and the SQL faults act too: ``pg_stat_ssl`` shows no TLS, and there is no SCRAM channel
    binding.
    On MySQL, ``doadmin`` and the users may also write in the server's own schemas. MariaDB supports only
    ``mysql_native_password``.
    Kafka's certificate and key are random. An ACL grants nothing, because there is no Kafka server.
    Requests without a valid token count towards no rate limit. ``data`` stores tokens, but not their request counts.
"""

from __future__ import annotations

from ._api import RecordedRequest
from ._embedded import warm_servers
from ._faults import Fault, Faults
from ._sandbox import Sandbox

__all__ = ["Fault", "Faults", "RecordedRequest", "Sandbox", "warm_servers"]
