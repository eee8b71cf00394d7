"""Read the whole body of an answer, with a limit on its size."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Iterator
from time import perf_counter
from typing import Protocol

import aiohttp

ACCEPTED = "gzip, deflate"  # the Accept-Encoding of every request

# The largest body in bytes, after decompression: enough for 10,000 Kafka users, each with a certificate and a key.
LONGEST = 32 << 20
_READ = 16 << 10  # bytes to decompress at a time
_WRITTEN = 256 << 10  # bytes of output at a time; they block the event loop for about a millisecond

_DEFLATE = zlib.MAX_WBITS
_GZIP = zlib.MAX_WBITS | 16
_FORMATS = {"gzip": _GZIP, "x-gzip": _GZIP, "deflate": _DEFLATE}


class BodyError(Exception):
    """The body is invalid. The message continues a sentence that starts with "the answer"."""


async def whole_body(response: aiohttp.ClientResponse, deadline: float) -> bytes:
    """Read the body of ``response`` and decompress it."""
    # aiohttp does not notice that a gzip body is cut off, does not know ``x-gzip``, and reports an unsupported encoding
    # as a broken connection, which we would retry.
    content = response.content
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding == "identity":
        if content.is_eof():  # most bodies arrive together with the headers
            return content.read_nowait()
        length = response.content_length
        if length is not None and length <= LONGEST:
            return await content.read()
    inflater = None
    if encoding != "identity":
        wbits = _FORMATS.get(encoding)
        if wbits is None:
            raise BodyError("uses a compression that the client does not support")
        inflater = _Inflater(wbits)
    body = bytearray()
    since = 0  # bytes since the last yield to other tasks
    async for chunk in content.iter_any():
        for piece in (chunk,) if inflater is None else inflater.feed(chunk):
            if len(body) + len(piece) > LONGEST:
                raise BodyError(f"is larger than {LONGEST >> 20} MiB")
            body += piece
            since += len(piece)
            if since >= _WRITTEN:
                since = 0
                await asyncio.sleep(0)
                if perf_counter() > deadline:
                    raise TimeoutError
    if inflater is not None and not inflater.is_complete:
        raise BodyError("ends in the middle of the compressed data")
    return bytes(body)


class _Decoder(Protocol):
    """The type of ``zlib.decompressobj()``, which has no public name."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    @property
    def unconsumed_tail(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


class _Inflater:
    """Decompresses in pieces of at most ``_WRITTEN`` bytes, so that a zip bomb cannot fill the memory."""

    def __init__(self, wbits: int) -> None:
        self._wbits = wbits
        self._decoder: _Decoder | None = None

    @property
    def is_complete(self) -> bool:
        return self._decoder is None or self._decoder.eof

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Decompress ``chunk``. Raises BodyError if its format is wrong."""
        for start in range(0, len(chunk), _READ):
            data, piece = chunk[start : start + _READ], b""
            while data or len(piece) == _WRITTEN:
                decoder = self._for(data)
                try:
                    piece = decoder.decompress(data, _WRITTEN)
                except zlib.error:
                    raise BodyError("cannot be decompressed") from None
                yield piece
                data = decoder.unused_data if decoder.eof else decoder.unconsumed_tail

    def _for(self, data: bytes) -> _Decoder:
        """Return the decoder for ``data``. Each gzip member needs a new one, and a body may have several."""
        if self._decoder is None or (self._decoder.eof and data):
            # "deflate" means the zlib format, which begins with an 8. Some servers send raw deflate instead.
            bare = self._wbits == _DEFLATE and data[0] & 0x0F != 8
            self._decoder = zlib.decompressobj(-self._wbits if bare else self._wbits)
        return self._decoder
