"""Open the store and the clusters of a command, and select its tenants."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Self, cast

from attrs import evolve, field, frozen

from ...errors import DatabaseClientError, InvalidArgumentError
from ...tenants import Role
from ...tenants._naming import guard_tenants, names_of
from ..plumbing.asking import confirm_destructive
from ..plumbing.files import read_names
from ..plumbing.opening import admin_login, find_clusters, is_missing, limiter_of, open_client, open_store
from ..plumbing.options import CLUSTER_VARIABLE, Confirmation, Selection, StoreOptions, TenantOptions
from ..plumbing.printing import note, some
from ..plumbing.progress import Report, called, follow
from ..plumbing.records import Entries, Records, read_entries

if TYPE_CHECKING:
    from ... import Cluster, DatabaseClient, RateLimiter
    from ...bulk import Run
    from ...tenants import TenantRole, Tenants
    from ...tenants._operations.loop import ChangeTenants
    from ...tenants._records import TenantRecord

_NO_CONFIRMATION = Confirmation()


@frozen(kw_only=True, slots=False)
class CommandContext(Records):
    """The tenants of some clusters, and those of them that a command is for."""

    known: Mapping[str, str]  # the names of clusters by their ids, also of those of the whole store
    tenants: Tenants
    limiter: RateLimiter
    wanted: Sequence[str] | None = None  # the names that were given; None: all
    names: dict[Role, list[str]] = field(factory=dict[Role, list[str]])
    selection: Selection = field(factory=Selection)
    confirmation: Confirmation = _NO_CONFIRMATION
    missing: dict[str, str] = field(factory=dict[str, str])  # why other given names are not among them

    def named(self, text: str) -> str:
        """Replace the ids of clusters in ``text`` with their names."""
        for id, name in self.known.items():
            text = re.sub(f"(?<!/){re.escape(id)}", name, text)  # the path of a request keeps its id
        return text

    def with_leftovers(self, names: Iterable[str]) -> StoreOptions:
        """The options of a repair, also with clusters where moves of these tenants may have left something."""
        records = filter(None, map(self.records[Role.OWNER].get, names))
        more = sorted(set().union(*map(_leftovers, records)) - {*self.clusters})
        clusters = [*self.clusters.values(), *(self.known.get(id, id) for id in more)]
        return evolve(self.options, clusters=clusters) if more else self.options

    def whole(self) -> Self:
        """Select no tenant if a name is missing: a typo must not leave a command half done."""
        return evolve(self, names={role: [] for role in self.names}) if self.missing else self

    def confirm(self, question: str, going: Sequence[object]) -> None:
        """Ask before these lose something."""
        confirm_destructive(question, len(going), self.selection, self.confirmation)

    @property
    def selected(self) -> list[tuple[Role, TenantRecord]]:
        """The records of the selected tenants, each with its role, without damaged ones."""
        found = [(role, self.records[role].get(name)) for role, names in self.names.items() for name in names]
        return [(role, each) for role, each in found if each is not None]

    async def run(
        self,
        begin: Callable[[Any, list[str]], Run[Any]],
        report: Report,
        would: str | Callable[[str, Role], str] = "",
    ) -> int:
        """Begin a run for each role that has names, and ``follow`` them; or list what it ``would`` do to each."""
        if self.confirmation.dry_run:
            return await self._preview(begin, report, would if callable(would) else lambda *_: would)
        runs = ((role.value, begin(self.in_role(role), its)) for role, its in self.names.items() if its)
        return await self.follow(runs, report)

    async def _preview(
        self, begin: Callable[[Any, list[str]], Run[Any]], report: Report, would: Callable[[str, Role], str]
    ) -> int:
        output, does = report.output, dict[tuple[str, Role], str]()
        for role, its in self.names.items():
            run = begin(self.in_role(role), its)
            run.stop()  # it does not begin
            job = cast("ChangeTenants[Any]", run._job)  # pyright: ignore[reportPrivateUsage]  # of this package
            await job.read_clock()
            for name in its:
                does[name, role] = self._settled(job, name, report) or would(name, role)
        idle = self.wanted if self.missing and not does and self.wanted else ()  # as ``whole`` leaves them out
        others = dict.fromkeys(idle, "nothing: another name fails")
        others |= {name: f"fail: {why}" for name, why in self.missing.items()}
        does |= {(name, next(iter(self.names))): what for name, what in others.items()}
        rows = list[dict[str, object]]()
        for (name, role), what in does.items():
            record = self.records[role].get(name)  # there is none of a new tenant
            columns = self.cluster_columns(record.cluster if record else None, as_json=output.as_json)
            rows.append({"name": name, "role": role.value} | columns | {"would": what})
        return self.entries.end(output.preview(rows))

    def _settled(self, job: ChangeTenants[Any], name: str, report: Report) -> str:
        """What the store shows already: that the name would fail or be kept. Else return an empty text."""
        if name in self.entries.damaged:
            return "fail: its record is damaged"
        try:
            kept = job.precheck(name, self.records[Role.OWNER].get(name), None)
        except DatabaseClientError as error:
            return f"fail: {report.reason(error).removesuffix('; nothing was sent')}"
        return "" if kept is None else "keep"

    def in_role(self, role: Role) -> TenantRole:
        return self.tenants if role is Role.OWNER else self.tenants.role(role)

    async def follow(self, runs: Iterable[tuple[str, Run[Any]]], report: Report) -> int:
        """Do the runs, print the outcomes, and return the exit code."""
        names = [called(name, role) for role, its in self.names.items() for name in its]
        code = await follow(runs, report, names=names, limiter=self.limiter, missing=self.missing)
        if self.missing and not names:
            others = len(self.wanted or ()) > len(self.missing)
            note(f"nothing was done{' for the other names either' if others else ''}")
        return self.entries.end(code)


@asynccontextmanager
async def open_records(options: StoreOptions) -> AsyncGenerator[Records]:
    """Open the store, without a token or a request if it knows the clusters."""
    async with open_store(options.store) as store:
        entries = await read_entries(store, options.store)
        clusters = entries.find(options.clusters) if options.clusters else entries.clusters()
        if clusters is None:
            async with open_client() as client:
                found = await find_clusters(client, options.clusters or ())
                clusters = {cluster.id: name for name, cluster in found.items()}
        yield Records(options=options, store=store, entries=entries, clusters=clusters)


@asynccontextmanager
async def open_tenants(
    options: StoreOptions,
    *,
    make: bool = False,
    new: Iterable[str] = (),
    more: Sequence[str] = (),
    dry_run: bool = False,
    **settings: Any,
) -> AsyncGenerator[CommandContext]:
    """Open the store and its clusters, with ``more``; ``make`` creates the store, if all ``new`` can be names."""
    from ...tenants import SQLiteStore, Tenants  # slow to import

    async with AsyncExitStack() as stack:
        entries, store = Entries(), None
        if not (make and is_missing(options.store)):  # that one is created last, so that a mistake leaves none behind
            store = await stack.enter_async_context(open_store(options.store, make=make))
            entries = await read_entries(store, options.store)
        known = entries.clusters()
        wanted = list(options.clusters or known)
        named = {known.get(each, each) for each in wanted}
        wanted += [each for each in more if known.get(each, each) not in named]
        offline = not isinstance(options, TenantOptions) and entries.find(wanted) is not None
        client = await stack.enter_async_context(open_client(offline=offline))
        found = await _find(client, wanted, entries)
        _check_names(new, found, options.prefix)
        if store is None and dry_run:  # an empty one that nobody sees
            folder = stack.enter_context(TemporaryDirectory())
            store = await stack.enter_async_context(SQLiteStore(Path(folder) / "tenants.db"))
        elif store is None:
            store = await stack.enter_async_context(open_store(options.store, make=True))
        if isinstance(options, TenantOptions):
            settings |= {"private": options.private, "connection_limit": options.connection_limit}
            settings["admin"] = admin_login(options.admin)
        tenants = Tenants([*found.values()], store, prefix=options.prefix, **settings)
        clusters = {each.id: name for name, each in found.items()}
        known |= clusters
        if not offline and set().union(*map(_leftovers, entries.records)) - {*known}:
            known = {each.id: each.name for each in await client.clusters.list()} | known
        yield CommandContext(
            options=options,
            store=store,
            entries=entries,
            clusters=clusters,
            known=known,
            tenants=tenants,
            limiter=limiter_of(client),
        )


def _leftovers(record: TenantRecord) -> set[str]:
    """The other clusters where a move may have left something."""
    found = record.leftover, record.operation.target if record.operation else None
    return {each for each in found if each is not None}


async def _find(client: DatabaseClient, wanted: Sequence[str], entries: Entries) -> dict[str, Cluster]:
    """Find the clusters by name, without a request for those that the store knows."""
    if not wanted:
        raise InvalidArgumentError(
            f"which cluster? Add --cluster, or set ${CLUSTER_VARIABLE}. `aiodbclient clusters list` lists them"
        )
    engines = {each.cluster: each.engine for each in entries.records}
    known = entries.find(wanted)
    if known is not None and len(known) == len(wanted) and all(id in engines for id in known):
        found = {name: client.cluster(id, engines[id]) for id, name in known.items()}
    else:
        found = await find_clusters(client, wanted)
    kinds = {each.engine: name for name, each in found.items() if each.engine is not None}
    for engine in kinds:
        guard_tenants(engine)
    if len(kinds) > 1:
        said = " and ".join(f"{name} is {engine}" for engine, name in kinds.items())
        raise InvalidArgumentError(f"{said}: name clusters of one engine alone")
    return found


def _check_names(names: Iterable[str], clusters: dict[str, Cluster], prefix: str) -> None:
    problems = list[str]()
    for engine in {each.engine for each in clusters.values() if each.engine is not None}:
        for name in names:
            try:
                names_of(name, engine, prefix)
            except InvalidArgumentError as error:
                problems.append(str(error).removesuffix("; nothing was sent"))
    if problems:
        raise InvalidArgumentError(f"{some(problems, '; ')}. Nothing was changed")


def names_in(selection: Selection, *, default_all: bool = False, takes_all: bool = True) -> list[str] | None:
    """The names that a command is for; None for all tenants in the store."""
    given = selection.names or selection.file
    if not (selection.everybody or given or default_all):
        or_all = ", or --all" if takes_all else ""
        raise InvalidArgumentError(f"which tenants? Give their names, or a file (--from names.csv){or_all}")
    if given and selection.everybody:
        raise InvalidArgumentError("give names, --from or --all, only one of them")
    return read_names(selection.names, selection.file) if given else None


@asynccontextmanager
async def open_selection(
    options: StoreOptions,
    selection: Selection,
    roles: Sequence[Role] = (Role.OWNER,),
    *,
    confirmation: Confirmation = _NO_CONFIRMATION,
    among: Callable[[TenantRecord], bool] | None = None,
    default_all: bool = False,
    partly: bool = False,
    destroys: bool = False,
    **settings: Any,
) -> AsyncGenerator[CommandContext]:
    """Find the selected tenants in each of the roles, with ``--all`` those ``among`` the records."""
    wanted = names_in(selection, default_all=default_all)
    async with open_tenants(options, **settings) as context:
        names, missing = dict[Role, list[str]](), dict[str, str]()
        for role in roles:
            names[role], lacking = context.select(wanted, role, corrects=not destroys)
            if role is roles[0]:  # with --role all, not each tenant has each role
                missing = lacking
            if wanted is None and among is not None:
                names[role] = [name for name, record in context.records[role].items() if among(record)]
        context = evolve(
            context, wanted=wanted, names=names, missing=missing, selection=selection, confirmation=confirmation
        )
        yield context if partly else context.whole()
