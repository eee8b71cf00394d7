"""Read the whole body of an answer, with a limit on its size."""

from __future__ import annotations

import aiohttp

ACCEPTED = "gzip, deflate"  # the Accept-Encoding of every request

# The largest body in bytes, after decompression: enough for 10,000 Kafka users, each with a certificate and a key.
LONGEST = 32 << 20


class BodyError(Exception):
    """The body is invalid. The message continues a sentence that starts with "the answer"."""


async def whole_body(response: aiohttp.ClientResponse) -> bytes:
    """Read the body of ``response``, which aiohttp decompresses piece by piece."""
    body = await response.content.readany()
    if response.content.at_eof():  # most bodies arrive together with the headers
        return body
    pieces, size = [body], len(body)
    async for piece in response.content.iter_any():
        pieces.append(piece)
        size += len(piece)
        if size > LONGEST:
            raise BodyError(f"is larger than {LONGEST >> 20} MiB")
    return b"".join(pieces)
