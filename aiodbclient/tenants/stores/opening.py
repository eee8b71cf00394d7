"""``SessionStore``: opening and closing, which is the same in each store here."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, Protocol, Self, TypeVar

from ...errors import ConfigurationError, StoreError


class StoreSession(Protocol):
    """The connection of an open store."""

    async def aclose(self) -> None:
        """Finish what was begun, and disconnect."""


SessionT = TypeVar("SessionT", bound=StoreSession)


class SessionStore(ABC, Generic[SessionT]):
    """A store that is an async context manager, and has a session while it is open."""

    def __init__(self) -> None:
        self._session: SessionT | None = None

    async def __aenter__(self) -> Self:
        """Open the store. Raises as the class says."""
        if self._session is not None:
            raise ConfigurationError(f"{self!r} is open already")
        self._session = self._make_session()
        try:
            await self._open(self._session)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Close the store, after what was begun is done. Claims that are still held are free then."""
        session, self._session = self._session, None
        if session is not None:
            await session.aclose()

    def _opened(self) -> SessionT:
        if self._session is None:
            raise StoreError(f"{self!r} is not open: use it in 'async with'")
        return self._session

    @abstractmethod
    def _make_session(self) -> SessionT:
        """Make a session. Its module is imported here, since it needs what the store's own does not."""

    @abstractmethod
    async def _open(self, session: SessionT) -> None:
        """Open ``session``, and make sure that the records there can be read with the key."""
