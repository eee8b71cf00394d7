"""Dump tenants to files, and load a file into a tenant."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from ..._bulk.outcomes import Action
from ...engines import POSTGRESQL
from ...errors import ConflictError, InvalidArgumentError
from .._context import Context
from .._copy import copier_of
from .._copy.files import Manifest, checked_folder, path_in, read, whole
from .._credential import Credential
from .._naming import Role, names_of
from .._outcomes import TenantDone, TenantDumped, done
from .._record import OnRecord, State, Verb
from ..errors import GrantError
from .jobs import ClaimingJob
from .tenant import ClaimedTenant
from .unfinished import reader_of

_AT_A_TIME = 4  # tenants


class DumpTenants(ClaimingJob[TenantDumped]):
    """Dump each tenant to a file. See ``Tenants.dump``."""

    def __init__(self, context: Context, folder: str | os.PathLike[str]) -> None:
        super().__init__(context)
        _refuse_roles(context)
        self._folder = checked_folder(folder)

    async def prepare(self) -> int:
        await super().prepare()
        return _AT_A_TIME

    def done_already(self, record: OnRecord, before: Credential | None) -> TenantDumped | None:
        if record.state not in (State.USABLE, State.SUSPENDED):
            raise record.unusable()
        return None

    async def work(self, tenant: ClaimedTenant) -> TenantDumped:
        name, site = tenant.names.tenant, tenant.site
        version = (await tenant.server.administrator()).version
        copier = await copier_of(site.engine).with_programs(tenant.names, version)
        path = path_in(self._folder, name, copier.ending)
        async with _temporary(tenant) as reader:
            survey = await copier.survey(reader, tenant.current.username)
            if survey.refusals:
                raise GrantError(f"tenant {name!r}: {'; '.join(survey.refusals)}", tenant=name)
            manifest = Manifest(
                tenant=name,
                database=tenant.names.database,
                engine=str(site.engine),
                server=version,
                program=copier.tools.text.strip(),
                date=(await tenant.now()).isoformat(timespec="seconds"),
                database_bytes=survey.bytes,
            )
            async with whole(path, manifest) as file:
                programs = "".join(await tenant.server.programs(tenant.names))
                await copier.dump(reader, programs, file, self.count_copied)
                await copier.check_whole(file.name)
        return TenantDumped(name=name, file=path, bytes=path.stat().st_size)


class LoadTenant(ClaimingJob[TenantDone]):
    """Load a dump into a tenant. See ``Tenants.load``."""

    def __init__(self, context: Context, file: str | os.PathLike[str]) -> None:
        super().__init__(context)
        _refuse_roles(context)
        if not isinstance(file, str | os.PathLike):
            raise InvalidArgumentError(f"file must be a path, not {file!r}")
        self._path = Path(os.fspath(file))

    def done_already(self, record: OnRecord, before: Credential | None) -> TenantDone | None:
        record.required()
        return None

    async def work(self, tenant: ClaimedTenant) -> TenantDone:
        name, kind = tenant.names.tenant, copier_of(tenant.site.engine)
        manifest, file = await asyncio.to_thread(read, self._path)
        with file:
            version = (await tenant.server.administrator()).version
            reason = f"it is of {manifest.engine}" if manifest.engine != tenant.site.engine else ""
            if reason := reason or kind.refusal(manifest.server, version):
                raise InvalidArgumentError(
                    f"{self._path} does not fit the tenant {name!r}: {reason}; nothing was changed"
                )
            copier = await kind.with_programs(tenant.names, manifest.server, version)
            if not await copier.is_empty(tenant.current):
                raise ConflictError(
                    f"the database of the tenant {name!r} is not empty; nothing was changed",
                    status=409,
                    advice="load the file into a new tenant, or drop what is in the database",
                )
            before = names_of(manifest.database, tenant.site.engine)
            try:
                if tenant.site.engine not in POSTGRESQL:
                    await copier.load(tenant.current, file, before, self.count_copied)
                else:  # a hostile file could set the password of the login that loads it
                    async with _temporary(tenant) as writer:
                        await copier.load(writer, file, before, self.count_copied)
            except GrantError as error:
                raise GrantError(
                    f"{error}; the database of the tenant {name!r} may have a part of the file", tenant=name
                ) from error
        return done(Action.DONE, tenant.current)


@asynccontextmanager
async def _temporary(tenant: ClaimedTenant) -> AsyncGenerator[Credential]:
    """A login for the time of a dump or a load. Keeps the intent that was there, such as of an unfinished rotation."""
    before = tenant.record.intent
    await tenant.intend(Verb.DUMP, tenant.current.username)
    try:
        yield await reader_of(tenant)
    finally:
        await tenant.server.drop_temporary(tenant.work)
        await tenant.held.intend(before)


def _refuse_roles(context: Context) -> None:
    if context.role is not Role.OWNER:
        raise InvalidArgumentError("a dump is of a tenant: call dump and load of the tenants, not of their roles")
