"""An API like the provider's on this machine, for tests and for trying things out.

``Sandbox`` answers as the provider's API does for clusters (reads, with their CA), users and dbs, and for the topics of
Kafka and the indexes of OpenSearch (list and delete). It does not use the client.

Where the API description is silent, the sandbox decides:
    A name that exists is a 422 "user name is not available". The provider says so of a connection pool
    (terraform-provider-digitalocean #925). Users and dbs of Redis and Valkey are a 422 "operation is not supported for
    this cluster type". The provider says so of the pools of a MySQL cluster (terraformer #1905).
    Settings of another engine are checked, then ignored. The primary user cannot be deleted (422), nor can MongoDB's
    ``do-readonly`` and its db ``admin``, nor a database of PostgreSQL that is a template.
    Users and dbs of a cluster that is not online can be read but not written (412).
    "``ratelimit-remaining`` reaching zero can also indicate that the burst limit [...] was met": it is 0 with a 429 of
    the minute's limit. ``Sandbox(remaining=...)`` offers the other ways to read that sentence.

Where it differs from the provider:
    Only ``add_cluster`` makes clusters, and they are online at once unless ``online_after`` says otherwise. No request
    creates, changes or destroys one. A status that is not ``online`` only makes writes fail.
    It answers only requests whose Host is this machine's loopback or was allowed (``allow_hosts``). Others are a 421,
    so that no web page can reach it by a host name of its own. Without a valid token it does not read the body.
    A list comes whole, unless ``page_size`` says otherwise. A user or db exists for all requests as soon as the answer
    to its create has been sent. ``faults`` can delay that, as has been seen at the provider.
    In memory, a cluster's host name leads nowhere. The embedded PostgreSQL has its TLS in a process in front of it: the
    server itself sees local connections (``pg_stat_ssl`` shows none), and offers no SCRAM channel binding.
    ``stop_database`` and the faults of SQL happen in that process too: the server behind it goes on for the API.
    On MySQL, ``doadmin`` and the users may also write in the server's own schemas. MariaDB knows only
    ``mysql_native_password``.
    Kafka's certificate and key have the form of PEM but are random. An ACL grants nothing, since no Kafka is there.
    Topics and indexes are names with nothing in them.
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
