"""``Problem``: the problems that ``Tenants.check`` reports. Pure."""

from __future__ import annotations

from enum import StrEnum


class Problem(StrEnum):
    """A problem of a stored tenant.

    Attributes:
        LOGIN_MISSING: The stored login does not exist.
        PASSWORD_REFUSED: The server refuses the stored password.
        DATABASE_MISSING: The database does not exist. Its data is lost.
        RIGHTS_MISSING: The tenant's owner does not own the database, or the login lacks rights of its role.
        OPEN_TO_OTHERS: A login of another tenant or person can connect to the database, or has a session there.
        OWNED_BY_OTHERS: The administrator or a stranger owns something in the database, which runs with their rights,
            or the tenant owns something in another database.
        TOO_MANY_RIGHTS: A login has rights outside of its role, such as those of ``pg_read_all_data``.
        SETTINGS_DIFFER: The API reports other settings for the login than its role has.
        PREVIOUS_REFUSED: The server refuses the credential from before the last rotation, which is not retired yet.
        UNFINISHED: A process started to change the tenant and did not finish.
        REMOVAL_UNFINISHED: A process started to remove the tenant and did not finish: run ``remove``.
    """

    LOGIN_MISSING = "login_missing"
    PASSWORD_REFUSED = "password_refused"
    DATABASE_MISSING = "database_missing"
    RIGHTS_MISSING = "rights_missing"
    OPEN_TO_OTHERS = "open_to_others"
    OWNED_BY_OTHERS = "owned_by_others"
    TOO_MANY_RIGHTS = "too_many_rights"
    SETTINGS_DIFFER = "settings_differ"
    PREVIOUS_REFUSED = "previous_refused"
    UNFINISHED = "unfinished"
    REMOVAL_UNFINISHED = "removal_unfinished"
