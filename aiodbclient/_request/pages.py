"""Lists, page after page."""

from __future__ import annotations

from typing import TypeVar

from yarl import URL

from .._json.converter import Answer, read_page
from ..errors import InvalidResponseError
from .call import Options
from .operations import Operation
from .transport import Transport

T = TypeVar("T")


async def read_all(
    transport: Transport, operation: Operation, path: str, key: str, model: type[T], options: Options
) -> list[T]:
    """All that the list at ``path`` holds, following ``links.pages.next``. Raises as ``Transport.request``, and
    InvalidResponseError where the next page is on another host or was read before."""
    items: list[T] = []
    seen = {path}
    while True:
        answer = await transport.request(operation, path, options=options)
        page, following = read_page(answer, key, list[model])  # type: ignore[valid-type]
        items += page
        if following is None:
            return items
        path = _path_of(transport.base_url, following, answer)
        if path in seen:
            raise InvalidResponseError(
                f"{answer.operation.at(answer.path)}: the list's next page was read before", status=answer.status
            )
        seen.add(path)


def _path_of(base_url: URL, following: str, answer: Answer) -> str:
    try:
        url = URL(f"{str(base_url).rstrip('/')}{answer.path}", encoded=True).join(URL(following))
        same = url.origin() == base_url.origin()
    except ValueError:
        same = False
    else:
        if same:
            return url.raw_path_qs.removeprefix(base_url.raw_path.rstrip("/"))
    raise InvalidResponseError(
        f"{answer.operation.at(answer.path)}: the list goes on at another host, not followed "
        f"since the token is for {base_url.host} alone",
        status=answer.status,
    )
