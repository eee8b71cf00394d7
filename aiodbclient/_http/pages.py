"""Read lists, page by page."""

from __future__ import annotations

from typing import TypeVar

from yarl import URL

from ..models import ClusterInfo, Database, User
from .call import Call, Options
from .operations import Operation
from .response import Response
from .transport import MAX_BODY, Transport

ListedT = TypeVar("ListedT", ClusterInfo, User, Database)

_PER_PAGE = 200  # the most that the API accepts (terraform-provider-digitalocean)
_MAX_PAGES = 200  # fewer than the requests of a minute


async def read_all(
    transport: Transport, operation: Operation, path: str, model: type[ListedT], options: Options
) -> list[ListedT]:
    """Read the whole list at ``path``, page by page (``links.pages.next``)."""
    path = f"{path}{'&' if '?' in path else '?'}per_page={_PER_PAGE}"
    items: dict[str, ListedT] = {}
    pages = size = 0
    while True:
        response = await transport.send(Call(operation, path, options))
        page, following = response.read_page(model)
        if following is None and not items:
            return page
        before = len(items)
        items |= {each.id if isinstance(each, ClusterInfo) else each.name: each for each in page}
        if following is None:
            return list(items.values())
        if len(items) == before:
            raise response.invalid("names a next page, but this one has nothing that was not on an earlier one")
        size += len(response.body)
        if size > MAX_BODY:
            raise response.invalid(f"makes the list longer than {MAX_BODY >> 20} MiB")
        pages += 1
        if pages == _MAX_PAGES:
            raise response.invalid(f"names a next page after {_MAX_PAGES} of them")
        path = _path_of(transport.base_url, following, response)


def _path_of(base_url: URL, following: str, response: Response) -> str:
    """Return the path and query of the next page, and refuse one at another host or path."""
    base = base_url.raw_path.rstrip("/")
    try:
        this = URL(f"{base_url.origin()}{base}{response.call.path}", encoded=True)
        url = this.join(URL(following))
        if url.origin() == base_url.origin() and url.raw_path == this.raw_path:
            return url.raw_path_qs.removeprefix(base)
    except ValueError:
        pass
    raise response.invalid(
        f"names a next page at another host or path, not followed since the token is for {base_url} alone"
    )
