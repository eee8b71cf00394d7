"""An API like the provider's on this machine, for tests and for trying things out.

``Sandbox`` implements the provider's API for clusters (reads, and the CA), users and dbs. It lists and deletes the
topics of Kafka and the indexes of OpenSearch. It does not use the client.

Where the API description is silent, the sandbox decides:
    A create with a taken name is a 422 "user name is not available". The provider answers this for a connection pool
    (terraform-provider-digitalocean #925). Users and dbs of Redis and Valkey are a 422 "operation is not supported for
    this cluster type". The provider answers this for the pools of a MySQL cluster (terraformer #1905).
    Settings of another engine are checked, then ignored. The primary user cannot be deleted (422). Neither can
    MongoDB's ``do-readonly`` and its db ``admin``, nor a PostgreSQL database that is a template.
    Users and dbs of a cluster that is not online can be read but not written (412).
    "``ratelimit-remaining`` reaching zero can also indicate that the burst limit [...] was met": it is 0 with a 429 of
    the minute's limit. ``Sandbox(remaining=...)`` selects another reading of that sentence.

Where it differs from the provider:
    Only ``add_cluster`` creates clusters. They are online at once unless you pass ``online_after``. No request creates,
    changes or destroys a cluster. A status other than ``online`` only makes writes fail.
    It serves only requests whose Host is this machine's loopback or listed in ``allow_hosts``. Others get a 421, so
    that no web page reaches it by DNS rebinding. Without a valid token it does not read the body.
    A list has a single page unless you pass ``page_size``. A user or db is visible to all requests as soon as the
    answer to its create is sent. ``faults`` can delay that, as the provider sometimes does.
    The host name of a cluster in memory does not resolve. The embedded PostgreSQL has its TLS in a process in front of
    it: the server itself sees local connections (``pg_stat_ssl`` shows no TLS) and offers no SCRAM channel binding.
    ``stop_database`` and the SQL faults act in that process too. The server behind it keeps serving the API.
    On MySQL, ``doadmin`` and the users may also write in the server's own schemas. MariaDB supports only
    ``mysql_native_password``.
    Kafka's certificate and key look like PEM but are random. An ACL grants nothing, since there is no Kafka server.
    Topics and indexes are names without content.
    Requests without a valid token count towards no rate limit. ``data`` stores tokens across restarts, but not their
    request counts.
"""

from __future__ import annotations

from ._embedded import warm_servers
from ._faults import Fault, Faults
from ._records import RecordedRequest
from ._sandbox import Sandbox

__all__ = ["Fault", "Faults", "RecordedRequest", "Sandbox", "warm_servers"]
