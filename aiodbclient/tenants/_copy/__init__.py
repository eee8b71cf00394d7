"""Copy a tenant's database to another server, by the programs of its engine. ``postgres`` and ``mysql`` do it.

Nothing here runs as the administrator: what a tenant wrote may run in each of these sessions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import IO, Any

from attrs import field, frozen

from ...engines import POSTGRESQL, Engine
from .._credential import Credential
from .._naming import Names
from .programs import Programs


@frozen(kw_only=True)
class Survey:
    """What is known of a database before it is copied."""

    bytes: int
    tables: int
    refusals: tuple[str, ...]  # why no server could have a copy of it
    extensions: tuple[tuple[str, str], ...] = ()  # PostgreSQL: those that the administrator makes, with their schemas
    facts: Mapping[str, Any] = field(factory=dict[str, Any])  # what ``obstacles`` and ``finish`` need


class Copier(ABC):
    """Copies one tenant's database."""

    def __init__(self, names: Names, tools: Programs) -> None:
        self.names = names
        self.tools = tools

    @staticmethod
    @abstractmethod
    def refusal(source: str, target: str) -> str:
        """Why a server of version ``target`` takes no dump of one of version ``source``; "" if it does."""

    @classmethod
    @abstractmethod
    async def with_programs(cls, names: Names, source: str, target: str, *, has_tls: bool) -> Copier:
        """Find the programs for servers of these versions. Raises ConfigurationError that names what to install."""

    @abstractmethod
    async def survey(self, reader: Credential, login: str) -> Survey:
        """Look at the database that is to be copied. ``reader`` may read all of it, ``login`` is the tenant's."""

    @abstractmethod
    async def obstacles(self, survey: Survey, reader: Credential, programs: str, writer: Credential) -> list[str]:
        """Why the empty database of ``writer`` could not have such a copy. Trying it may leave something there."""

    @abstractmethod
    async def dump(self, reader: Credential, programs: str, target: IO[bytes]) -> None:
        """Dump the database, and add ``programs``, which are no part of a dump of MySQL."""

    @abstractmethod
    async def restore(self, writer: Credential, source: IO[bytes]) -> None:
        """Restore a dump, which may be hostile."""

    @abstractmethod
    async def count(self, credential: Credential) -> Mapping[str, str]:
        """The number of rows of each table, and where each sequence is."""

    @abstractmethod
    async def finish(self, survey: Survey, writer: Credential, events: str) -> None:
        """Copy the settings of the database, and make the ``events``, which begin to run."""


def copier_of(engine: Engine | str) -> type[Copier]:
    """Return the copier of an engine."""
    if engine in POSTGRESQL:
        from .postgres import PostgresCopier  # each needs its own driver

        return PostgresCopier
    from .mysql import MySQLCopier

    return MySQLCopier
