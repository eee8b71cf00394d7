"""``Role``: what a tenant's login may do. Pure."""

from __future__ import annotations

from enum import StrEnum


class Role(StrEnum):
    """What a tenant's login may do in the tenant's database.

    Attributes:
        OWNER: Everything: it owns the database.
        WRITER: Read and change data. It creates no tables.
        READER: Read data.
    """

    OWNER = "owner"
    WRITER = "writer"
    READER = "reader"
