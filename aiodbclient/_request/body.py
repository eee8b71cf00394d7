"""An answer's body, whole and of bounded size."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Iterator
from time import perf_counter
from typing import Protocol

import aiohttp

ACCEPTED = "gzip, deflate"  # what the client asks for, as Accept-Encoding

# Bytes of a body, after decompression: ten thousand users of Kafka, each with a certificate and a key.
LONGEST = 32 << 20
_READ = 16 << 10  # bytes that are decompressed at a time
_WRITTEN = 256 << 10  # bytes that come of it at a time, which take a millisecond of the event loop

_DEFLATE = zlib.MAX_WBITS
_GZIP = zlib.MAX_WBITS | 16
_FORMATS = {"gzip": _GZIP, "x-gzip": _GZIP, "deflate": _DEFLATE}


class BodyError(Exception):
    """A body that is refused. Its text follows on "the answer"."""


async def whole_body(response: aiohttp.ClientResponse, deadline: float) -> bytes:
    """Read the body of ``response``, and decompress it.

    aiohttp would decompress it without a bound, and stall the event loop meanwhile.

    Args:
        response: Of a request with ``auto_decompress=False``.
        deadline: When to give up decompressing, in seconds of ``perf_counter``. aiohttp sees to it while it reads.

    Raises:
        BodyError: It is larger than ``LONGEST``, or cannot be decompressed.
        TimeoutError: ``deadline`` has passed.
    """
    content = response.content
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding == "identity":
        if content.is_eof():  # it came with the headers, as most do
            return content.read_nowait()
        length = response.content_length
        if length is not None and length <= LONGEST:
            return await content.read()
    inflater = None
    if encoding.strip().lower() != "identity":
        wbits = _FORMATS.get(encoding.strip().lower())
        if wbits is None:
            raise BodyError("is compressed in a way that was not asked for")
        inflater = _Inflater(wbits)
    body = bytearray()
    since = 0  # bytes since other tasks had their turn
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
        raise BodyError("breaks off in the middle of what is compressed")
    return bytes(body)


class _Decoder(Protocol):
    """What ``zlib.decompressobj`` makes, whose type has no public name."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    @property
    def unconsumed_tail(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


class _Inflater:
    """Decompresses piece by piece: each at most ``_WRITTEN`` bytes, however much there is in it."""

    def __init__(self, wbits: int) -> None:
        self._wbits = wbits
        self._decoder: _Decoder | None = None

    @property
    def is_complete(self) -> bool:
        return self._decoder is None or self._decoder.eof

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Decompress ``chunk``. Raises BodyError if it is of another format."""
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
        """The decoder for ``data``: a new one at the start, and behind the end of a member (gzip may have several)."""
        if self._decoder is None or (self._decoder.eof and data):
            # "deflate" means zlib's format, which begins with an 8, but some send it bare.
            bare = self._wbits == _DEFLATE and data[0] & 0x0F != 8
            self._decoder = zlib.decompressobj(-self._wbits if bare else self._wbits)
        return self._decoder
