"""Lists, page after page."""

from __future__ import annotations

from typing import TypeVar

from yarl import URL

from .answer import Answer
from .body import LONGEST
from .call import Call, Meter, Options
from .operations import Operation
from .transport import Transport

T = TypeVar("T")

_MOST = 5_000  # pages of one list: a hundred thousand users, at the API's usual 20 a page


async def read_all(
    transport: Transport,
    operation: Operation,
    path: str,
    model: type[T],
    options: Options,
    meter: Meter | None = None,
) -> list[T]:
    """Read the whole list at ``path``, page after page (``links.pages.next``).

    Raises:
        InvalidResponseError: The next page is at another host or path, or was read before; or there are more than
            5,000 pages, or 128 MiB of them.
        DatabaseClientError: As ``Transport.send``.
    """
    items: list[T] = []
    seen = {path}
    size = 0
    while True:
        answer = await transport.send(Call(operation, path, options, meter))
        page, following = answer.read_page(model)
        items += page
        size += len(answer.body)
        if size > LONGEST:
            raise answer.invalid(f"makes the list longer than {LONGEST >> 20} MiB")
        if following is None:
            return items
        path = _path_of(transport.base_url, following, answer)
        if path in seen:
            raise answer.invalid("names a next page that was read before")
        if len(seen) >= _MOST:
            raise answer.invalid(f"names a next page after {_MOST:,} of them")
        seen.add(path)


def _path_of(base_url: URL, following: str, answer: Answer) -> str:
    """The path and query of the next page, which differs from this page's in its query alone."""
    base = base_url.raw_path.rstrip("/")
    try:
        this = URL(f"{base_url.origin()}{base}{answer.call.path}", encoded=True)
        url = this.join(URL(following))
        if url.origin() == base_url.origin() and url.raw_path == this.raw_path:
            return url.raw_path_qs.removeprefix(base)
    except ValueError:
        pass
    raise answer.invalid(
        f"names a next page at another host or path, not followed since the token is for {base_url} alone"
    )
