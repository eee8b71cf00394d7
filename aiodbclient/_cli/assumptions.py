"""What this package assumes of the provider. ``doctor`` proves it, and docs/why/provider.md explains it. Pure."""

from __future__ import annotations

from attrs import frozen

from ..engines import MYSQL, POSTGRESQL, Engine

_BY_SQL = POSTGRESQL | MYSQL
_MONGODB = frozenset({Engine.MONGODB})
_BY_SETTINGS = frozenset({Engine.KAFKA, Engine.OPENSEARCH})
_ADVANCED = frozenset({Engine.ADVANCED_PG, Engine.ADVANCED_MYSQL})


@frozen
class Assumption:
    """One assumption."""

    id: str  # in the report and on the page
    sentence: str
    check: str = ""  # the line of ``doctor`` that shows it; empty if none does
    trial: bool = False  # whether only ``--try`` prints that line
    engines: frozenset[str] = frozenset()  # empty for all


ASSUMPTIONS = (
    # The API
    Assumption("scopes", "A call without its scope is a 403, and changes nothing."),
    Assumption("hourly-limit", "Answers report the token's hourly limit in ratelimit-limit.", "rate limit"),
    Assumption("windows", "Each token has 250 requests in any minute and 5,000 in any hour."),
    Assumption("pages", "Lists link to the next page at links.pages.next, and take per_page=200."),
    Assumption(
        "dbs-key", "Databases are listed under dbs, or under databases.", "databases", engines=_BY_SQL | _MONGODB
    ),
    Assumption("lost-answers", "After a 5xx or a broken connection, a write may be applied, also later."),
    Assumption("names", "Names keep their case, digits, _ and -.", "names", True),
    Assumption("taken-names", "A create of a taken name is a 409 or 422.", "taken name", True),
    Assumption("deletes", "Within 10 s, reading or deleting a deleted login is a 404.", "deletion", True),
    Assumption("read-lag", "Reads show a new login within 10 s.", "reads", True),
    Assumption("writes-at-once", "Logins can be created at once.", "writes at a time", True, _BY_SQL | _BY_SETTINGS),
    Assumption("one-write", "On MongoDB, user writes that overlap are a 500.", engines=_MONGODB),
    # Clusters
    Assumption("statuses", "A cluster accepts changes while its status is online.", "cluster"),
    Assumption("not-yet-404", "Reads and creates on a new cluster may be a 404 for up to a minute."),
    Assumption("refused-412", "A write to a cluster that is being changed is a 412, and not applied."),
    Assumption("replicas", "Calls on users accept a replica's UUID."),
    Assumption("ca", "The cluster's CA signs its servers' certificates, for their host names.", "TLS", engines=_BY_SQL),
    Assumption("advanced", "The advanced engines behave as pg and mysql.", "still works", True, _ADVANCED),
    # Passwords and settings
    Assumption("password-on-create", "The answer to a create has the password.", "login", True),
    Assumption("reset", "reset_auth replaces the password, and returns another one.", "reset", True),
    Assumption(
        "password-on-reads",
        "Reads return passwords to a token with database:view_credentials.",
        "passwords on reads",
        True,
        _BY_SQL | _BY_SETTINGS,
    ),
    Assumption("password-once", "MongoDB's passwords are not returned on reads.", "passwords on reads", True, _MONGODB),
    Assumption(
        "settings-on-reads",
        "Reads return a login's settings as sent, or leave them out.",
        "settings on reads",
        True,
        _MONGODB | _BY_SETTINGS,
    ),
    # Tenants
    Assumption(
        "doadmin",
        "doadmin has CREATEROLE and CREATEDB, and may end sessions.",
        "administrator",
        engines=POSTGRESQL,
    ),
    Assumption(
        "doadmin-mysql", "doadmin may create users, and grant rights on schemas.", "administrator", engines=MYSQL
    ),
    Assumption(
        "by-sql", "The provider leaves logins and databases alone that were made by SQL.", "still works", True, _BY_SQL
    ),
)
