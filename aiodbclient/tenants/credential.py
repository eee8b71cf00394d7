"""What a tenant's program needs to reach its database."""

from __future__ import annotations

from attrs import field, frozen

from ..engines import Engine


def _masked(value: object) -> str:
    return "None" if value is None else "'********'"


@frozen(kw_only=True)
class Credential:
    """A login of a tenant and where it works.

    ``name`` is the tenant's, ``username`` the login's. ``ca`` is the cluster's certificate authority as PEM, or None
    where the cluster speaks no TLS. ``access_cert`` and ``access_key`` are Kafka's. Credentials are masked in ``repr``.
    """

    name: str
    username: str
    password: str | None = field(repr=_masked)
    database: str | None
    host: str
    port: int
    engine: Engine | str
    uri: str = field(repr=_masked)
    ca: str | None = field(default=None, repr=False)
    access_cert: str | None = field(default=None, repr=_masked)
    access_key: str | None = field(default=None, repr=_masked)
