"""Where the commands ``aiodbclient tenants`` work, on which tenants, and how each does its run."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from difflib import SequenceMatcher, get_close_matches
from pathlib import Path
from typing import Any
from uuid import UUID

from attrs import evolve, field, frozen

from .. import ClusterClient, DatabaseClient, Failed, Run
from ..engines import Engine, guard_tenants
from ..errors import (
    InvalidArgumentError,
    NameTakenError,
    NoRoomError,
    NotFoundError,
    RotationPendingError,
    ServerError,
    StoreError,
    SuspendedError,
    TenantNotFoundError,
    TransportError,
)
from ..tenants import Credential, Plan, Record, Role, Store, TenantEvent, Tenants
from ..tenants._naming import tenant_of
from ..tenants._record import Verb, cluster_of, intent_of, pending
from .arguments import WHICH, Chosen, Place, Printed, Recorded, given_options, role_options
from .asking import FEW, confirm_ending, some
from .delivery import lines_of, row_of
from .following import Heard, Report, called, follow
from .names import check_tenants, locate_names, selecting
from .opening import AnyBudget, find_clusters, is_id, open_client, patiently
from .output import DONE, SOME_FAILED, UNUSABLE, command_line, note, quoted, safe, this_command
from .running import has_way_out
from .store_commands import complain_damaged
from .stores import IfMissing, open_store, shown

_ALIKE = str.maketrans("lIOo", "1100")  # letters that look like digits
_NEAR = 0.75  # how near a name must be to the one that was meant


@frozen
class OnRecord:
    """The records of a role, and the names of those that are damaged."""

    records: Mapping[str, Record]
    damaged: Sequence[str]


@frozen
class Opened:
    """The tenants of the clusters that the options of a command name."""

    tenants: Tenants
    store: Store
    budget: AnyBudget
    place: Recorded
    called: Mapping[str, str]  # what the operator calls each cluster, by its id
    events: dict[str, TenantEvent]  # of each tenant that was worked on, by its name, with --verbose
    heard: Heard
    found: dict[Role, OnRecord] = field(factory=dict[Role, OnRecord], init=False)

    def report(self, printed: Printed, **more: Any) -> Report:
        """What is printed of tenants, with the ways out of their failures."""
        return Report(as_objects=printed.as_json, ways=self.ways, events=self.events, heard=self.heard, **more)

    @property
    def cluster(self) -> str:
        """The cluster or clusters, as the operator named them."""
        return ", ".join(self.called.values())

    def home(self, cluster: str | None, printed: Printed) -> dict[str, object]:
        """The cluster of a tenant: for people as they call it, for programs its id, and its name if it is known."""
        if printed.as_json:
            return {"cluster": cluster, "cluster_name": self.name_of(cluster)}
        return {"cluster": self.called.get(cluster or "")}

    def name_of(self, cluster: str | None) -> str | None:
        """The name of a cluster, if it is known."""
        name = self.called.get(cluster or "")
        return None if name is None or is_id(name) else name

    def clusters_of(self, names: Sequence[str], role: Role) -> str:
        """The clusters of these tenants, as the operator named them."""
        records = self.found[role].records
        homes = {cluster_of(records[name]) for name in names if name in records}
        return ", ".join(name for id, name in self.called.items() if id in homes) or self.cluster

    async def on_record(self, role: Role) -> OnRecord:
        """What is on record of a role, also if some of it is damaged."""
        if role not in self.found:
            records, damaged = dict[str, Record](), list[str]()
            try:
                async for record in self.tenants.role(role).records():
                    records[record.name] = record
            except StoreError as error:
                if not error.damaged:
                    raise
                damaged = [name for name, its in map(tenant_of, error.damaged) if its is role]
            self.found[role] = OnRecord(records, damaged)
        return self.found[role]

    async def select(self, wanted: Sequence[str] | None, role: Role) -> tuple[list[str], dict[str, str]]:
        """The names of ``wanted`` that are on record, and why the others are not. None: all."""
        found = await self.on_record(role)
        if wanted is None:
            if not found.records and not found.damaged and (why := await self.elsewhere()):
                raise InvalidArgumentError(f"{why}. Nothing was changed")
            return list(found.records), {}
        there = {*found.records, *found.damaged}
        owners = there if role is Role.OWNER else set((await self.on_record(Role.OWNER)).records)
        others = owners.difference(wanted)  # a name that was given too is not the one that was meant
        missing = {name: self._missing(name, role, owners, others) for name in wanted if name not in there}
        return [name for name in wanted if name in there], missing

    async def elsewhere(self) -> str:
        """What the store has of other clusters or prefixes, if it has nothing of these; otherwise an empty text."""
        counts, prefixes = Counter[str | None](), set[str]()
        with suppress(StoreError):  # a damaged record is reported by whoever uses it
            async for record in self.store.records():
                cluster, current = cluster_of(record), record.current
                counts[cluster] += 1
                if cluster in self.called and current is not None and current.database is not None:
                    prefixes.add(current.database.removesuffix(current.name))
        del counts[None]
        if prefixes and self.place.prefix not in prefixes:
            others = " or ".join(
                f"--prefix {quoted(each)}" if each else "no --prefix" for each in sorted(prefixes)[:FEW]
            )
            return (
                f"{shown(self.place.store)} has tenants of {safe(self.cluster)} with another prefix alone: use {others}"
            )
        if not counts or counts.keys() & self.called.keys():
            return ""
        ids = [f"{safe(cluster)} ({count})" for cluster, count in counts.most_common(FEW)]
        more = f" and {len(counts) - FEW} more" if len(counts) > FEW else ""
        place = evolve(self.place, clusters=list(map(str, counts))[:FEW])
        return (
            f"{shown(self.place.store)} has no tenants of {safe(self.cluster)}: its {counts.total()} records belong to "
            f"other clusters: {', '.join(ids)}{more}. To see them: "
            f"{command_line(['tenants', 'list', *given_options(place, Recorded)])}"
        )

    def _missing(self, name: str, role: Role, owners: set[str], others: set[str]) -> str:
        if name in owners:
            return f"it has no {role}. To create one: {self.command('provision', name, role=role)}"
        meant = _nearest(name, others)
        return f"not on record{'' if meant is None else f'. Did you mean {safe(meant)}?'}"

    def ways(self, failed: Sequence[tuple[Failed, str]]) -> Iterator[str]:
        """Yield the commands that help tenants that failed, where running the same one again does not."""
        groups = defaultdict[tuple[type[Exception], Role, str], list[str]](list)
        for outcome, label in failed:
            role = Role(label or Role.OWNER)
            record = self.found[role].records.get(outcome.name) if role in self.found else None
            begun = pending(record) if record is not None and isinstance(outcome.error, TenantNotFoundError) else []
            if begun or has_way_out(outcome.error):
                groups[type(outcome.error), role, "".join(begun[:1])].append(outcome.name)
        for (kind, role, verb), names in groups.items():
            for way in self._ways(kind, names, role, verb):
                yield f"{some(names)}: {way}"

    def _ways(self, kind: type[Exception], names: list[str], role: Role, verb: str) -> Iterator[str]:
        if kind is NoRoomError:
            yield f"no room. {self._more_room()}"
        elif kind is NameTakenError and len(self.called) > 1:
            yield "not on record, and on a cluster. To take over what exists, use --adopt and that --cluster alone"
        elif kind is NameTakenError:
            yield f"not on record, and on the cluster. If it is this tenant's, take it over: {this_command('--adopt')}"
        else:
            yield from self._ways_of(kind, selecting(names), role, verb)

    def _ways_of(self, kind: type[Exception], which: list[str], role: Role, verb: str) -> Iterator[str]:
        if kind is RotationPendingError:
            yield f"not retired yet. To revoke the previous logins: {self.command('retire', *which, role=role)}"
            forced = self.command("rotate", *which, "--force", role=role)
            yield f"to rotate nevertheless, which revokes what is not retired: {forced}"
        elif kind is SuspendedError:
            yield f"suspended. To give the logins back: {self.command('resume', *which)}"
        elif kind is NotFoundError:
            yield self.lost(which)
        else:
            yield f"begun, and not finished. To finish: {self.command(verb, *which, role=role)}"

    def lost(self, which: Sequence[str]) -> str:
        """What helps tenants whose database is gone."""
        recreate = self.command("repair", *which, "--recreate")
        return f"no database. Restore it from a backup of the cluster, or make an empty one: {recreate}"

    def _more_room(self) -> str:
        return f"Use a higher --most, or add a --cluster. To see the rooms: {self.command('rooms')}"

    async def plan(self, wanted: Collection[str], role: Role, **options: Any) -> Plan:
        """Compare the names with the store and the cluster. Raises as ``Tenants.plan``."""
        try:
            return await self.tenants.role(role).plan(wanted, **options)
        except NoRoomError:
            new = len(set(wanted).difference((await self.on_record(role)).records))
            free = sum(room.free or 0 for room in await self.tenants.rooms())
            raise NoRoomError(f"no room: {new} wanted, {free} free. {self._more_room()}") from None

    def half_removed(self, names: Sequence[str], role: Role) -> list[str]:
        """Those of the names whose removal, with all data, was begun and not finished."""
        records = self.found[role].records
        intents = {name: intent_of(records.get(name)) for name in names}
        return [name for name, intent in intents.items() if intent is not None and intent.verb is Verb.REMOVE]

    async def credentials(self, wanted: Sequence[str] | None, role: Role) -> tuple[list[Credential], dict[str, str]]:
        """The credentials of ``wanted``, and why the others have none. None: all that have one."""
        names, missing = await self.select(wanted, role)
        found = {name: await self.tenants.role(role).get(name) for name in names}
        if wanted is not None:
            missing |= {name: self._unusable(name, role) for name, each in found.items() if each is None}
        return [each for each in found.values() if each is not None], missing

    def _unusable(self, name: str, role: Role) -> str:
        """Why a tenant on record has no credential to use."""
        record = self.found[role].records.get(name)
        if record is not None and record.current is not None and record.current.suspended is not None:
            return f"it is suspended. To give it its login back: {self.command('resume', name)}"
        return "no credential is stored, since its creation or removal is not finished"

    def command(self, verb: str, *words: str, role: Role = Role.OWNER) -> str:
        """Another command on the same tenants, to be copied."""
        kind = Recorded if verb in ("list", "rooms") else type(self.place)
        return command_line(["tenants", verb, *words, *role_options(role), *given_options(self.place, kind)])

    def end(self, code: int) -> int:
        """Report the damaged records, if a command was for all. Returns the exit code."""
        damaged = [(name, role) for role, found in self.found.items() for name in found.damaged]
        for name, role in damaged:
            complain_damaged(self.place.store, name, role)
        return UNUSABLE if damaged and code in (DONE, SOME_FAILED) else code


def _nearest(name: str, others: Collection[str]) -> str | None:
    """The one of ``others`` that is nearest to ``name``; None if several are as near, or all are far."""
    if alike := [each for each in others if each.translate(_ALIKE) == name.translate(_ALIKE)]:
        return alike[0]
    near = [(SequenceMatcher(None, each, name).ratio(), each) for each in get_close_matches(name, others, 2, _NEAR)]
    return None if not near or (len(near) > 1 and near[0][0] == near[1][0]) else near[0][1]


def is_suspended(record: Record, before: datetime | None = None) -> bool:
    """Whether a tenant is suspended, or was by then."""
    since = None if record.current is None else record.current.suspended
    return since is not None and (before is None or since <= before)


def is_young(record: Record, age: timedelta) -> bool:
    """Whether the tenant's credential is younger than ``age``."""
    since = None if record.current is None else record.current.since
    return since is not None and datetime.now(UTC) - since < age


def waits_for_retire(record: Record) -> bool:
    """Whether the tenant was rotated, and its previous credential is not retired."""
    return record.previous is not None and record.intended is None


@asynccontextmanager
async def open_place(
    place: Recorded, if_missing: IfMissing = IfMissing.FAIL, most: int | None = None, new: Mapping[str, str] = {}
) -> AsyncGenerator[Opened]:
    """Find the clusters and check the ``new`` names, then open the store, so that a mistake leaves no store behind.

    For a ``Recorded`` that is no ``Place`` nothing is sent, and no token is needed, if the clusters are given by ids,
    or not at all: then they are those on record.
    """
    heard, events = Heard(), dict[str, TenantEvent]()
    async with AsyncExitStack() as stack:
        store: Store | None = None
        if isinstance(place, Place) and not place.clusters:
            raise InvalidArgumentError(WHICH.format("--cluster"))
        if not place.clusters:
            store = await stack.enter_async_context(open_store(place.store, if_missing))
            place = evolve(place, clusters=await _clusters_on_record(store))
        wanted = place.clusters or ()
        offline = not isinstance(place, Place) and all(map(is_id, wanted))
        options: dict[str, Any] = {}
        if isinstance(place, Place):
            if place.admin is not None and len(wanted) > 1:
                raise InvalidArgumentError("--admin is for one cluster, and several are given. Nothing was sent")
            options = {"private": place.private, "admin": place.admin, "connection_limit": place.connection_limit}
        opening = open_client(place.budget, offline=offline, on_event=heard)
        client, budget = await stack.enter_async_context(opening)
        clusters = await _found(client, place, offline=offline)
        engine = _engine_of(clusters, wanted)
        if engine is not None:
            check_tenants(new, engine, place.prefix)
        called = {each.id: name for each, name in zip(clusters, wanted, strict=True)}
        if store is None:
            store = await stack.enter_async_context(open_store(place.store, if_missing))
        if place.verbose:
            options["on_event"] = lambda event: events.__setitem__(event.name, event)
        tenants = Tenants(clusters, store, prefix=place.prefix, most=most, **options)
        yield Opened(tenants, store, budget, place, called, events, heard)


async def _clusters_on_record(store: Store) -> list[str]:
    """The ids of all clusters that the store names. If it names none, an id that no cluster has."""
    found = {cluster: None async for cluster in _homes(store) if cluster is not None}
    return list(found) or [str(UUID(int=0))]


async def _homes(store: Store) -> AsyncGenerator[str | None]:
    with suppress(StoreError):  # a damaged record is reported by whoever uses it
        async for record in store.records():
            yield cluster_of(record)


async def _found(client: DatabaseClient, place: Recorded, *, offline: bool) -> list[ClusterClient]:
    wanted = place.clusters or ()
    if offline:
        return [client.cluster(UUID(each)) for each in wanted]
    async with patiently():
        try:
            return await find_clusters(client, wanted)
        except (ServerError, TransportError):
            if not isinstance(place, Place):
                ids = command_line(["store", "list", place.store, "-o", "wide"])
                note(f"this needs no API where --cluster is an id, or is left out. To see the ids on record: {ids}")
            raise


def _engine_of(clusters: Sequence[ClusterClient], names: Sequence[str]) -> Engine | str | None:
    """The engine of the clusters, as far as it is known. Raises InvalidArgumentError if they can have no tenants."""
    if len({each.id for each in clusters}) < len(clusters):
        raise InvalidArgumentError(
            f"--cluster {', '.join(map(safe, names))}: the same cluster twice. Nothing was changed"
        )
    engines = {each.engine: name for each, name in zip(clusters, names, strict=True) if each.engine is not None}
    for engine in engines:
        guard_tenants(engine)
    if len(engines) > 1:
        found = " and ".join(f"{safe(name)} is {engine}" for engine, name in engines.items())
        raise InvalidArgumentError(f"{found}: name clusters of one engine alone. Nothing was changed")
    return next(iter(engines), None)


def named(names: list[str], file: Path | None, everybody: bool) -> list[str] | None:
    """The names that a command is for; None for all tenants in the store."""
    if not (everybody or names or file):
        raise InvalidArgumentError("which tenants? Give their names, a file (--from names.csv), or --all")
    if not everybody:
        return list(locate_names(names, file))
    if names or file:
        raise InvalidArgumentError("give names, --from or --all, only one of them. Nothing was sent")
    return None


@frozen
class Selection:
    """The tenants that a command is for: their names by role, and why others that were given are missing."""

    opened: Opened
    wanted: Sequence[str] | None
    typed: bool
    names: Mapping[Role, Sequence[str]]
    missing: Mapping[str, str]

    @property
    def total(self) -> int:
        """How many names there are, each counted for each of its roles."""
        return sum(map(len, self.names.values()))

    def confirm_ending(
        self, question: str, number: int, cluster: str, *, most: int | None, yes: bool, done: str = "removed"
    ) -> None:
        """Ask before so many of them are deleted or suspended."""
        confirm_ending(question, number, typed=self.typed, cluster=cluster, most=most, yes=yes, done=done)

    async def run(
        self,
        verb: Callable[[Tenants, Sequence[str]], Run[Any]],
        printed: Printed,
        *,
        show: bool = False,
        again: Callable[[Collection[str]], str] | None = None,
    ) -> int:
        """Do ``verb`` for each role, and print what becomes of it. Returns the exit code."""
        opened = self.opened
        code = await follow(
            {role.value: verb(opened.tenants.role(role), its) for role, its in self.names.items() if its},
            total=self.total,
            budget=opened.budget,
            report=report_of(printed, opened, show=show),
            again=again,
            missing=self.missing,
        )
        return opened.end(code)


@asynccontextmanager
async def open_selection(
    place: Place,
    chosen: Chosen,
    roles: Sequence[Role],
    *,
    among: Callable[[Record], bool] | None = None,
    default_all: bool = False,
) -> AsyncGenerator[Selection]:
    """Find the chosen tenants in each of the roles. ``among`` says which of the records ``--all`` means."""
    words, file = chosen.names or [], chosen.file
    wanted = named(words, file, chosen.everybody or (default_all and not (words or file)))
    async with open_place(place) as opened:
        names, missing = dict[Role, list[str]](), dict[str, str]()
        for role in roles:
            names[role], lacking = await opened.select(wanted, role)
            if role is roles[0]:  # with --role all, not each tenant has each role
                missing = lacking
            if wanted is None and among is not None:
                names[role] = [name for name, record in opened.found[role].records.items() if among(record)]
        yield Selection(opened, wanted, chosen.typed, names, missing)


def report_of(printed: Printed, opened: Opened, *, show: bool) -> Report:
    """What is printed of tenants: their credentials with ``show``, what was repaired, and each that was removed."""
    left = list[str]()

    def is_new(outcome: Any, role: str) -> bool:
        """Whether programs need another password than before."""
        found, now = opened.found.get(Role(role)), outcome.credential
        record = None if found is None else found.records.get(outcome.name)
        before = None if record is None else record.current
        if now is None or now.suspended is not None or outcome.action in ("deleted", "suspended"):
            return False
        return before is None or (before.username, before.password) != (now.username, now.password)

    def row(outcome: Any, role: str) -> dict[str, Any]:
        credential = outcome.credential
        if credential is None:
            members: dict[str, Any] = {}
        else:
            name = opened.name_of(credential.cluster)
            members = row_of(credential, None, show=show, as_object=True, cluster_name=name)
        members["credential_changed"] = is_new(outcome, role)
        return members | ({"problems": list(outcome.problems)} if hasattr(outcome, "problems") else {})

    def details(outcome: Any, role: str) -> str:
        lines = list[str]()
        who = safe(called(outcome.name, role))
        end = " (new credential: deliver it)" if is_new(outcome, role) else ""
        if outcome.action == "kept" and outcome.credential is not None and outcome.credential.suspended is not None:
            left.append(outcome.name)
        if problems := getattr(outcome, "problems", ()):
            lines.append(f"{who}: {outcome.action}: {', '.join(problems)}{end}")
        elif outcome.action in ("repaired", "resumed") and end:
            lines.append(f"{who}: {outcome.action}{end}")
        elif outcome.action == "deleted":
            lines.append(f"{safe(outcome.name)}: deleted")
        if show and outcome.credential is not None:
            lines.append(lines_of(outcome.credential))
        return "\n".join(lines)

    return opened.report(
        printed, row=row, details=details, summary=lambda failed: f" ({some(left)}: suspended)" if left else ""
    )
