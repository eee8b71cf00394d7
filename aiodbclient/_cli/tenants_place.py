"""Where the commands ``aiodbclient tenants`` work, on which tenants, and how each does its run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID

from attrs import asdict, evolve, field, frozen

from ..errors import (
    ConflictError,
    InvalidArgumentError,
    NameTakenError,
    NotFoundError,
    ServerError,
    TransportError,
)
from ..tenants import ProblemKind, Role
from ..tenants._guard import guard_tenants
from ..tenants.errors import (
    CapacityError,
    RotationPendingError,
    SuspendedError,
    TenantNotFoundError,
)
from .arguments import WHICH, Chosen, Place, Recorded
from .asking import some
from .delivery import lines_of, row_of
from .failures import has_way_out
from .files import read_names
from .following import Heard, Report, called, follow
from .names import check_tenants, selecting
from .opening import IfMissing, admin_login, find_clusters, open_client, open_store, patiently, shown
from .output import command_line, keep_stdout_private, note, safe, this_command
from .printing import Printed
from .records import Records, arranged, read_entries

if TYPE_CHECKING:
    from .. import ClusterClient, DatabaseClient, Failed, RateLimiter, Run
    from ..tenants import TenantEvent, TenantRole, Tenants
    from ..tenants._record import OnRecord


@frozen(kw_only=True)
class Opened(Records):
    """The tenants of the clusters that the options of a command name, and those of them that it is for."""

    tenants: Tenants
    budget: RateLimiter
    events: dict[str, TenantEvent]  # of each tenant that was worked on, by its name, with --verbose
    heard: Heard
    wanted: Sequence[str] | None = None  # the names that were given; None: all
    typed: bool = True  # whether each of them was typed on the command line
    names: Mapping[Role, Sequence[str]] = field(factory=dict[Role, Sequence[str]])
    missing: Mapping[str, str] = field(factory=dict[str, str])  # why other names that were given are not among them

    @property
    def total(self) -> int:
        """How many names there are, each counted for each of its roles."""
        return sum(map(len, self.names.values()))

    def whole(self) -> Self:
        """The same; for no tenant if a name is missing, so that a command is not half done because of a typo."""
        return evolve(self, names=dict.fromkeys(self.names, ())) if self.missing else self

    async def run(self, verb: Callable[[Any, Sequence[str]], Run[Any]], report: Report, **more: Any) -> int:
        """Do ``verb`` for each role that has names, as ``follow`` does."""
        runs = {role: verb(self.in_role(role), its) for role, its in self.names.items() if its}
        return await self.follow(runs, report, **more)

    def in_role(self, role: Role) -> TenantRole:
        """The tenants, or their readers or writers."""
        return self.tenants if role is Role.OWNER else self.tenants.role(role)

    async def follow(self, runs: Mapping[Role, Run[Any]], report: Report, **more: Any) -> int:
        """Do the runs, and print what becomes of the names, as ``following.follow`` does. Returns the exit code."""

        async def unfinished() -> list[str]:
            wanted = {(role, name) for role, its in self.names.items() for name in its}
            records = (await read_entries(self.store)).records
            begun = [each for each in records if each.intent is not None and (each.role, each.name) in wanted]
            return [called(each.name, each.role) for each in begun]

        each = {role.value: run for role, run in runs.items()}
        more |= {"names": [called(name, role) for role, its in self.names.items() for name in its]}
        more |= {"missing": self.missing, "unfinished": unfinished if report.changes else None}
        code = self.end(await follow(each, budget=self.budget, report=report, **more))
        if self.missing and not self.total:
            others = len(self.wanted or ()) > len(self.missing)
            note(f"nothing was done{' for the other names either' if others else ''}")
        return code

    def report(self, printed: Printed, **more: Any) -> Report:
        """What is printed of tenants, with the ways out of their failures."""
        return Report(as_objects=printed.as_json, ways=self.ways, events=self.events, heard=self.heard, **more)

    def ways(self, failed: Sequence[tuple[Failed, str]], *, rotates: bool = False) -> Iterator[str]:
        """Yield the commands that help tenants that failed, where running the same one again does not."""
        groups = defaultdict[tuple[type[Exception], Role, str], list[str]](list)
        for outcome, label in failed:
            role = Role(label or Role.OWNER)
            record = self.records[role].get(outcome.name)
            begun = record.pending if record is not None and isinstance(outcome.error, TenantNotFoundError) else []
            about = "".join(begun[:1])
            if isinstance(outcome.error, NameTakenError):
                about = next((name for id, name in self.called.items() if id in str(outcome.error)), "")
            elif isinstance(outcome.error, RotationPendingError):
                about = "rotate" if rotates else ""
            if begun or has_way_out(outcome.error):
                groups[type(outcome.error), role, about].append(outcome.name)
        for (kind, role, about), names in groups.items():
            for way in self._ways(kind, names, role, about):
                yield f"{some(names)}: {way}"

    def _ways(self, kind: type[Exception], names: list[str], role: Role, about: str) -> Iterator[str]:
        """``about``: what was begun or is done, or the cluster that has the names of others."""
        if kind is CapacityError:
            yield f"no room. {self._more_room()}"
        elif kind is NameTakenError:
            where = f"not on record in {shown(self.place.store)}, and on the cluster {safe(about or self.cluster)}"
            adopt = this_command("--adopt")
            record = self.records[role].get(names[0])
            if about and record is not None and record.current is not None:  # a move
                yield f"{where}. Drop it there, or move to another cluster"
                return
            if about:
                adopt = self.command("provision", *selecting(names), "--adopt", role=role, clusters=[about])
            yield f"{where}. If another store owns it, use that store. If it is this tenant's, take it over: {adopt}"
        else:
            yield from self._ways_of(kind, selecting(names), role, about)

    def _ways_of(self, kind: type[Exception], which: list[str], role: Role, verb: str) -> Iterator[str]:
        if kind is RotationPendingError and not verb:  # a move, of the tenant with all its roles
            revoke = self.command("revoke-previous", *which, "--role", "all")
            yield f"it has an adopted login. To revoke that one, and then move: {revoke}"
        elif kind is RotationPendingError:
            yield f"not revoked yet. To revoke them: {self.command('revoke-previous', *which, role=role)}"
            forced = self.command("rotate", *which, "--force", role=role)
            yield f"to rotate nevertheless, which revokes what is not revoked: {forced}"
        elif kind is SuspendedError:
            yield f"suspended. To give the logins back: {self.command('resume', *which)}"
        elif kind is NotFoundError:
            yield self.lost(which)
        elif kind is ConflictError:  # the two logins of a tenant exist
            drop = command_line(["users", "delete", "CLUSTER", "LOGIN", "--not-a-tenant"])
            yield (
                f"not on record in {shown(self.place.store)}. If another store owns it, use that store. Otherwise drop "
                f"the login that no program uses, and run this again. To drop it: {drop}"
            )
        else:
            yield f"begun, and not finished. To finish: {self.command(verb, *which, role=role)}"

    def lost(self, which: Sequence[str]) -> str:
        """What helps tenants whose database is gone."""
        return "no database. Restore it from a backup of the cluster; or remove the tenant and provision it again"

    def _more_room(self) -> str:
        return f"Use a higher --max-tenants, or add a --cluster. To see the capacity: {self.command('capacity')}"


@asynccontextmanager
async def open_records(place: Recorded) -> AsyncGenerator[Records]:
    """Open the store. Nothing is sent, and no token is needed, if the store knows the clusters."""
    async with open_store(place.store) as store:
        entries = await read_entries(store)
        called = entries.find(place.clusters or ())
        if called is None:
            async with open_client(place.budget) as (client, _):
                called = _called(await _found(client, place), place)
        yield arranged(place, store, entries, called)


@asynccontextmanager
async def open_place(
    place: Recorded, if_missing: IfMissing = "fail", most: int | None = None, new: Sequence[str] = ()
) -> AsyncGenerator[Opened]:
    """Find the clusters and check the ``new`` names, then open the store, so that a mistake leaves no store behind.

    For a ``Recorded`` that is no ``Place`` the tenants send nothing, and the store is opened as ``open_records`` does.
    """
    from ..tenants import Tenants  # slow to import

    heard = Heard()
    events: dict[str, TenantEvent] = {}
    options: dict[str, Any] = {"prefix": place.prefix, "max_tenants": most}
    if place.verbose:
        options["on_event"] = lambda event: events.__setitem__(event.name, event)
    async with AsyncExitStack() as stack:
        if isinstance(place, Place):
            _check_options(place)
            options |= {
                "private": place.private,
                "admin": admin_login(place.admin),
                "connection_limit": place.connection_limit,
            }
            client, budget = await stack.enter_async_context(open_client(place.budget, on_event=heard))
            clusters = await _found(client, place)
            for engine in {each.engine for each in clusters if each.engine is not None}:
                check_tenants(new, engine, place.prefix)
            store = await stack.enter_async_context(open_store(place.store, if_missing))
            records = arranged(place, store, await read_entries(store), _called(clusters, place))
        else:
            records = await stack.enter_async_context(open_records(place))
            client, budget = await stack.enter_async_context(open_client(place.budget, offline=True, on_event=heard))
            # Without records there is no cluster, and one that does not exist does no harm.
            clusters = [client.cluster(UUID(each)) for each in records.called or [str(UUID(int=0))]]
        tenants = Tenants(clusters, records.store, **options)
        on_record = asdict(records, recurse=False)
        yield Opened(**on_record, tenants=tenants, budget=budget, events=events, heard=heard)


def _check_options(place: Place) -> None:
    if not place.clusters:
        raise InvalidArgumentError(WHICH.format("--cluster"))
    if place.admin is not None and len(place.clusters) > 1:
        raise InvalidArgumentError("--admin is for one cluster, and several are given. Nothing was sent")


def _called(found: Sequence[ClusterClient], place: Recorded) -> dict[str, str]:
    """What the operator calls each cluster, by its id."""
    return {each.id: name for each, name in zip(found, place.clusters or (), strict=True)}


async def _found(client: DatabaseClient, place: Recorded) -> list[ClusterClient]:
    async with patiently():
        try:
            found = await find_clusters(client, place.clusters or ())
        except (ServerError, TransportError):
            if not isinstance(place, Place):
                ids = command_line(["store", "list", place.store, "-o", "wide"])
                note(f"this needs no API where --cluster is an id, or is left out. To see the ids on record: {ids}")
            raise
    _check(found, place.clusters or ())
    return found


def _check(clusters: Sequence[ClusterClient], names: Sequence[str]) -> None:
    """Raise InvalidArgumentError if the clusters can have no tenants, as far as their engines are known."""
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


def named(chosen: Chosen, *, default_all: bool = False) -> list[str] | None:
    """The names that a command is for; None for all tenants in the store."""
    given = chosen.names or chosen.file
    if not (chosen.everybody or given or default_all):
        raise InvalidArgumentError("which tenants? Give their names, a file (--from names.csv), or --all")
    if given and chosen.everybody:
        raise InvalidArgumentError("give names, --from or --all, only one of them. Nothing was sent")
    return read_names(chosen.names, chosen.file) if given else None


@asynccontextmanager
async def open_selection(
    place: Recorded,
    chosen: Chosen,
    roles: Sequence[Role],
    *,
    among: Callable[[OnRecord], bool] | None = None,
    default_all: bool = False,
    partly: bool = False,
) -> AsyncGenerator[Opened]:
    """Find the chosen tenants in each of the roles. ``among`` says which of the records ``--all`` means.

    If a name is missing, it finds none of the others, unless the command is ``partly`` done then.
    """
    wanted = named(chosen, default_all=default_all)
    async with open_place(place) as opened:
        names, missing = dict[Role, list[str]](), dict[str, str]()
        for role in roles:
            names[role], lacking = opened.select(wanted, role)
            if role is roles[0]:  # with --role all, not each tenant has each role
                missing = lacking
            if wanted is None and among is not None:
                names[role] = [name for name, record in opened.records[role].items() if among(record)]
        selected = evolve(opened, wanted=wanted, typed=chosen.typed, names=names, missing=missing)
        yield selected if partly else selected.whole()


def report_of(printed: Printed, opened: Opened, *, show: bool = False) -> Report:
    """What is printed of tenants: their credentials with ``show``, what was repaired, and each that was removed."""
    left = list[str]()
    if show:
        keep_stdout_private()

    def delivery(outcome: Any, role: str) -> str:
        """What to do if programs may need another password than they have; else an empty text."""
        now, record = outcome.credential, opened.records[Role(role)].get(outcome.name)
        before = None if record is None else record.current
        if now is None or now.suspended is not None or outcome.action in ("deleted", "suspended"):
            return ""
        if before is None or (before.username, before.password) != (now.username, now.password):
            return " (new credential: deliver it)"
        if ProblemKind.UNKNOWN_LOGIN in {each.kind for each in getattr(outcome, "problems", ())}:
            return " (a login that is not on record, and may be newer, was ended: deliver the credential on record)"
        return ""

    def is_renewed(outcome: Any, role: str) -> bool:
        """Whether a removal that was stopped was finished, and the tenant created again."""
        return outcome.action == "created" and bool(opened.half_removed([outcome.name], Role(role)))

    def row(outcome: Any, role: str) -> dict[str, Any]:
        credential = outcome.credential
        if credential is None:
            members: dict[str, Any] = {}
        else:
            members = row_of(credential, None, show=show, as_object=True)
        members["credential_changed"] = bool(delivery(outcome, role))
        if is_renewed(outcome, role):
            members["removal_finished"] = True
        return members | ({"problems": list(outcome.problems)} if hasattr(outcome, "problems") else {})

    def details(outcome: Any, role: str) -> str:
        lines = list[str]()
        who = safe(called(outcome.name, role))
        end = delivery(outcome, role)
        if outcome.action == "kept" and outcome.credential is not None and outcome.credential.suspended is not None:
            left.append(outcome.name)
        if problems := getattr(outcome, "problems", ()):
            lines.append(f"{who}: {outcome.action}: {', '.join(problems)}{end}")
        elif outcome.action in ("repaired", "resumed") and end:
            lines.append(f"{who}: {outcome.action}{end}")
        elif is_renewed(outcome, role):
            deleted = "its data is deleted" if role == Role.OWNER else "its login is deleted"
            lines.append(f"{who}: its removal is finished, {deleted}, and it is created again{end}")
        elif outcome.action == "deleted":
            lines.append(f"{who}: deleted")
        if show and outcome.credential is not None:
            lines.append(lines_of(outcome.credential))
        return "\n".join(lines)

    return opened.report(
        printed,
        changes=True,
        row=row,
        details=details,
        summary=lambda failed: f" ({some(left)}: suspended)" if left else "",
    )
