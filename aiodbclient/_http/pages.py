"""Read lists, page by page."""

from __future__ import annotations

from collections.abc import Sized
from typing import TypeVar

from yarl import URL

from .._json.parsing import values_in
from .call import Call, Options
from .operations import Operation
from .response import Response
from .transport import Transport

T = TypeVar("T")

# The API's pages have 20 entries, unless a client asks for up to 200, as terraform-provider-digitalocean does.
_USUAL, PER_PAGE = 20, 200
# Limits of one list. 100,000 users need half of each, if a page has 20 entries all the same.
_MOST_PAGES = 5_000
_MOST_BYTES = 128 << 20
_MOST_VALUES = 1_000_000


async def read_all(
    transport: Transport,
    operation: Operation,
    path: str,
    model: type[T],
    options: Options,
) -> list[T]:
    """Read the whole list at ``path``, page by page (``links.pages.next``).

    The API description says of none of these lists that it has pages. So the first request asks for no size. If the
    list has pages of the usual size, it is read again from its beginning in the largest ones.
    """
    items: list[T] = []
    sized = f"{path}{'&' if '?' in path else '?'}per_page={PER_PAGE}"
    seen = {path}
    size = values = 0
    while True:
        answer = await transport.send(Call(operation, path, options))
        page, following = answer.read_page(model)
        items += page
        size += len(answer.body)
        if size > _MOST_BYTES:
            raise answer.invalid(f"makes the list longer than {_MOST_BYTES >> 20} MiB")
        if following is None:
            return items
        values += values_in(answer.body)
        if values > _MOST_VALUES:
            raise answer.invalid(f"makes the list longer than {_MOST_VALUES:,} values")
        path = _path_of(transport.base_url, following, answer)
        if path in seen:
            raise answer.invalid("names a next page that was read before")
        if len(seen) >= _MOST_PAGES:
            raise answer.invalid(f"names a next page after {_MOST_PAGES:,} of them")
        if len(seen) == 1 and is_usual(items):
            path, items = sized, []
        seen.add(path)


def is_usual(first_page: Sized) -> bool:
    """Whether the first of several pages has the usual size, so that larger ones save requests."""
    return _USUAL <= len(first_page) < PER_PAGE


def _path_of(base_url: URL, following: str, answer: Response) -> str:
    """Return the path and query of the next page. Only the query may differ from this page's."""
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
