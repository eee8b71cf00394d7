"""An API of the same shape on loopback, for tests and for trying things out.

``Sandbox`` answers what the provider's API answers for clusters (read, with their CA), users and dbs. Nothing here
imports the client.

Where the API description is silent, the sandbox decides:
    A name that exists is a 422 "user name is not available", as the provider says of a connection pool
    (terraform-provider-digitalocean #925); users and dbs of Redis and Valkey are a 422 "operation is not supported for
    this cluster type", as it says of the pools of a MySQL cluster (terraformer #1905).
    Settings of another engine are checked, then ignored. The primary user cannot be deleted (422), nor MongoDB's
    ``do-readonly`` and its db ``admin``.
    Users and dbs of a cluster that is not online can be read, and not written (412).
    "``ratelimit-remaining`` reaching zero can also indicate that the burst limit [...] was met": it is 0 with a 429 of
    the minute's limit; ``Sandbox(remaining=...)`` has the other ways to read that.

Where it differs from the provider:
    Clusters are made with ``add_cluster`` alone, and online at once unless ``online_after`` says otherwise; no request
    creates, changes or destroys one. A status does nothing but let writes fail.
    It answers to the names of this machine's loopback alone (421), so that no page in a browser can reach it by a name
    of its own. Without a valid token nothing of a body is read.
    A list comes whole, unless ``page_size`` says otherwise. A user or db is there for all requests as soon as the
    answer to its create has been sent; ``faults`` can make that later, as it has been seen at the provider.
    In memory, a cluster's host name leads nowhere. The embedded PostgreSQL has its TLS in front, in a process of its
    own: the server itself sees local connections (``pg_stat_ssl`` has none), and offers no SCRAM channel binding.
    On MySQL, ``doadmin`` and the users may also write in the server's own schemas. MariaDB knows only
    ``mysql_native_password``.
    Kafka's certificate and key have the form of PEM but are random; an ACL grants nothing, for nothing is there.
    Requests without a valid token count nowhere. ``data`` keeps tokens over a restart, and not how many requests were
    counted for them.
"""

from __future__ import annotations

from .faults import Fault, Faults
from .records import RecordedRequest
from .sandbox import Sandbox

__all__ = ["Fault", "Faults", "RecordedRequest", "Sandbox"]
