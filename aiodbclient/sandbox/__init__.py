"""An API like the provider's on 127.0.0.1, for tests and for trying things out.

``Sandbox`` answers as the provider's API does for clusters (reads, with their CA), users and dbs, and for the topics of
Kafka and the indexes of OpenSearch (list and delete). It does not use the client.

Where the API description is silent, the sandbox decides:
    A name that exists is a 422 "user name is not available", as the provider says of a connection pool
    (terraform-provider-digitalocean #925); users and dbs of Redis and Valkey are a 422 "operation is not supported for
    this cluster type", as it says of the pools of a MySQL cluster (terraformer #1905).
    Settings of another engine are checked, then ignored. The primary user cannot be deleted (422), nor can MongoDB's
    ``do-readonly`` and its db ``admin``.
    Users and dbs of a cluster that is not online can be read but not written (412).
    "``ratelimit-remaining`` reaching zero can also indicate that the burst limit [...] was met": it is 0 with a 429 of
    the minute's limit. ``Sandbox(remaining=...)`` offers the other ways to read that sentence.

Where it differs from the provider:
    Only ``add_cluster`` makes clusters, and they are online at once unless ``online_after`` says otherwise. No request
    creates, changes or destroys one. A status that is not ``online`` does nothing but make writes fail.
    It answers only requests whose Host names this machine's loopback (else 421), so that no web page can reach it by a
    host name of its own. Without a valid token it reads nothing of a body.
    A list comes whole, unless ``page_size`` says otherwise. A user or db is there for all requests as soon as the
    answer to its create has been sent; ``faults`` can delay that, as has been seen at the provider.
    In memory, a cluster's host name leads nowhere. The embedded PostgreSQL has its TLS in a process in front of it: the
    server itself sees local connections (``pg_stat_ssl`` shows none), and offers no SCRAM channel binding.
    On MySQL, ``doadmin`` and the users may also write in the server's own schemas. MariaDB knows only
    ``mysql_native_password``.
    Kafka's certificate and key have the form of PEM but are random. An ACL grants nothing, since no Kafka is there.
    Requests without a valid token are counted for no rate limit. ``data`` keeps tokens over a restart, but not how many
    requests were counted for them.
"""

from __future__ import annotations

from .fault import Fault
from .faults import Faults
from .records import RecordedRequest
from .sandbox import Sandbox
from .warm import warm_servers

__all__ = ["Fault", "Faults", "RecordedRequest", "Sandbox", "warm_servers"]
