"""Lists, page after page."""

from __future__ import annotations

from typing import TypeVar

from yarl import URL

from .answer import Answer
from .call import Call, Options
from .operations import Operation
from .transport import Transport

T = TypeVar("T")


async def read_all(transport: Transport, operation: Operation, path: str, model: type[T], options: Options) -> list[T]:
    """All that the list at ``path`` holds, following ``links.pages.next``.

    Raises:
        DatabaseClientError: As ``Transport.send``; InvalidResponseError where the next page is on another host or was
            read before.
    """
    items: list[T] = []
    seen = {path}
    while True:
        answer = await transport.send(Call(operation, path, options))
        page, following = answer.read_page(model)
        items += page
        if following is None:
            return items
        path = _path_of(transport.base_url, following, answer)
        if path in seen:
            raise answer.invalid("names a next page that was read before")
        seen.add(path)


def _path_of(base_url: URL, following: str, answer: Answer) -> str:
    try:
        url = URL(f"{str(base_url).rstrip('/')}{answer.call.path}", encoded=True).join(URL(following))
        same = url.origin() == base_url.origin()
    except ValueError:
        same = False
    else:
        if same:
            return url.raw_path_qs.removeprefix(base_url.raw_path.rstrip("/"))
    raise answer.invalid(
        f"names a next page at another host, not followed since the token is for {base_url.host} alone"
    )
