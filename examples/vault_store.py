"""A store of tenants' credentials in HashiCorp Vault or OpenBao, in their key-value engine, version 2, over HTTP."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Self
from urllib.parse import urlsplit

import aiohttp
from attrs import evolve, frozen

from aiodbclient.errors import InvalidArgumentError
from aiodbclient.tenants import Claim, RecordCodec, TenantRecord
from aiodbclient.tenants.errors import ClaimLostError, StoreError


@frozen
class _Document:
    """What Vault stores for one name: its record (None: forgotten, or never stored), and its claim with the expiry."""

    record: str | None = None
    token: str | None = None
    expires: float = 0.0


class VaultStore:
    """Credentials under ``mount``/``folder`` of the Vault at ``url``. Vault encrypts them.

    Each change is a check-and-set: it names the version that it is based on, and Vault refuses it if a newer version
    exists. Times come from Vault's clock, by the Date header of its answers, to the second. With ``key``, records are
    encrypted before they are sent.
    """

    def __init__(
        self,
        url: str,
        token: str,
        mount: str = "secret",
        folder: str = "tenants",
        key: Sequence[str] | None = None,
    ) -> None:
        self._url, self._token, self._mount, self._folder = url, token, mount, folder
        self._codec = RecordCodec(key)
        self._http: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        headers = {"X-Vault-Token": self._token}
        self._http = aiohttp.ClientSession(self._url, headers=headers, timeout=aiohttp.ClientTimeout(10))
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        http, self._http = self._http, None
        if http is not None:
            await http.close()

    async def get(self, name: str) -> TenantRecord | None:
        document, _, _ = await self._read(name)
        return None if document.record is None else self._codec.decode(name, document.record)

    async def records(self) -> AsyncIterator[TenantRecord]:
        _, answer, _ = await self._ask("GET", "metadata", "?list=true")
        keys = answer["data"]["keys"] if answer else []
        for name in sorted(bytes.fromhex(key).decode() for key in keys):
            record = await self.get(name)
            if record is not None:
                yield record

    async def claim(self, name: str, lease: float) -> Claim | None:
        token = secrets.token_hex(16)
        try:
            while True:
                document, version, now = await self._read(name)
                if document.token is not None and document.expires > now:
                    return None
                text = document.record
                record = None if text is None else self._codec.decode(name, text)
                if await self._write(name, _Document(text, token, now + lease), version):
                    return Claim(name=name, token=token, record=record)
        except asyncio.CancelledError:
            await self.release(Claim(name=name, token=token, record=None))
            raise

    async def renew(self, claim: Claim, lease: float) -> None:
        await self._change(claim, lease=lease)

    async def save(self, claim: Claim, record: TenantRecord | None, *, release: bool = False) -> None:
        # Vault's own delete does not check the version, so a record that goes is a document without one.
        text = None if record is None else self._codec.encode(record)
        await self._change(claim, record=text, **({"token": None} if release else {}))

    async def release(self, claim: Claim) -> None:
        with suppress(ClaimLostError):
            await self._change(claim, token=None)

    async def now(self) -> datetime:
        """The time that ``Tenants`` stores as the ``created`` of a login."""
        _, _, now = await self._ask("GET", "metadata", "?list=true")
        return datetime.fromtimestamp(now, UTC)

    async def _change(self, claim: Claim, lease: float | None = None, **changes: str | None) -> None:
        while True:
            document, version, now = await self._read(claim.name)
            if document.token != claim.token:
                raise ClaimLostError(f"the claim on {claim.name!r} has expired, or another process has taken it over")
            expires = document.expires if lease is None else now + lease
            changed: _Document = evolve(document, expires=expires, **changes)
            if await self._write(claim.name, changed, version):
                return

    async def _read(self, name: str) -> tuple[_Document, int, float]:
        """The document of ``name``, its version, and Vault's time."""
        _, answer, now = await self._ask("GET", "data", f"/{_key(name)}")
        if answer is None:
            return _Document(), 0, now
        return _Document(**answer["data"]["data"]), answer["data"]["metadata"]["version"], now

    async def _write(self, name: str, document: _Document, version: int) -> bool:
        """Write ``document`` if ``version`` is still the newest. Returns whether it was written."""
        data = {"record": document.record, "token": document.token, "expires": document.expires}
        body = {"data": data, "options": {"cas": version}}
        status, _, _ = await self._ask("POST", "data", f"/{_key(name)}", body)
        return status != 400

    async def _ask(self, method: str, kind: str, rest: str, body: Any = None) -> tuple[int, Any, float]:
        if self._http is None:
            raise StoreError("the store is not open: use it in 'async with'")
        path = f"/v1/{self._mount}/{kind}/{self._folder}{rest}"
        try:
            async with self._http.request(method, path, json=body) as answer:
                now = parsedate_to_datetime(answer.headers["Date"]).timestamp()
                if answer.status == 404:
                    return 404, None, now
                content = await answer.json()
                if answer.status == 200 or (answer.status == 400 and "check-and-set" in str(content)):
                    return answer.status, content, now
        except (aiohttp.ClientError, TimeoutError, ValueError, KeyError) as error:
            raise StoreError(f"Vault did not answer: {type(error).__name__}") from None
        raise StoreError(f"Vault answered {answer.status} to {method} {kind}")


def from_url(url: str, key: Sequence[str] | None) -> VaultStore:
    """Create the store for ``--store vault://HOST:PORT/MOUNT/FOLDER``. The token is in ``VAULT_TOKEN``.

    A package registers it for the command with an entry point::

        [project.entry-points."aiodbclient.stores"]
        vault = "vault_store:from_url"
    """
    parts = urlsplit(url)
    mount, _, folder = parts.path.strip("/").partition("/")
    scheme = "http" if parts.scheme == "vault+http" else "https"
    if not parts.netloc or not mount or not folder or "VAULT_TOKEN" not in os.environ:
        raise InvalidArgumentError("write the store as vault://HOST:PORT/MOUNT/FOLDER, and set VAULT_TOKEN")
    return VaultStore(f"{scheme}://{parts.netloc}", os.environ["VAULT_TOKEN"], mount, folder, key)


def _key(name: str) -> str:
    """Encode any tenant's name as one segment of a path."""
    return name.encode().hex()
