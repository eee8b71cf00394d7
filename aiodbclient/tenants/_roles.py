"""``Role``: the rights of a tenant's login. Pure."""

from __future__ import annotations

from enum import StrEnum


class Role(StrEnum):
    """The rights of a tenant's login in the tenant's database.

    Attributes:
        OWNER: All rights: it owns the database.
        WRITER: Read and change data. It creates no tables.
        READER: Read data.
    """

    OWNER = "owner"
    WRITER = "writer"
    READER = "reader"
