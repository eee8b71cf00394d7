"""What a store has on record for the clusters of a command, and which of it the command means."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from difflib import SequenceMatcher, get_close_matches
from typing import TYPE_CHECKING

from attrs import evolve, field, frozen

from ..errors import InvalidArgumentError
from ..tenants import Role
from ..tenants._naming import tenant_of
from ..tenants._record import OnRecord, Verb, read_all
from ..tenants.errors import StoreError
from .arguments import Recorded, role_options
from .asking import FEW
from .failures import Exit
from .opening import home_of, is_id, shown
from .output import command_line, complain, quoted, safe
from .printing import Printed
from .running import given_options

if TYPE_CHECKING:
    from ..tenants import Credential, Store

_ALIKE = str.maketrans("lIOo", "1100")  # letters that look like digits
_NEAR = 0.75  # how near a name must be to the one that was meant


@frozen(kw_only=True)
class Records:
    """What the store of ``place`` has on record."""

    place: Recorded
    store: Store
    called: Mapping[str, str]  # what the operator calls each cluster, by its id
    records: Mapping[Role, Mapping[str, OnRecord]]  # by role, and by the names of the tenants
    damaged: Sequence[tuple[Role, str]]  # the tenants whose records are damaged
    others: Mapping[tuple[Role, str], OnRecord]  # of other clusters and prefixes

    @property
    def cluster(self) -> str:
        """The cluster or clusters, as the operator named them."""
        return ", ".join(self.called.values())

    def home(self, cluster: str | None, printed: Printed) -> dict[str, object]:
        """The cluster of a tenant: for people as they call it, for programs its id, and its name if it is known."""
        called = self.called.get(cluster or "")
        if not printed.as_json:
            return {"cluster": called}
        return {"cluster": cluster, "cluster_name": None if called is None or is_id(called) else called}

    def clusters_of(self, names: Sequence[str], role: Role) -> str:
        """The clusters of these tenants, as the operator named them."""
        records = self.records[role]
        homes = {records[name].cluster for name in names if name in records}
        return ", ".join(name for id, name in self.called.items() if id in homes) or self.cluster

    def select(self, wanted: Sequence[str] | None, role: Role) -> tuple[list[str], dict[str, str]]:
        """The names of ``wanted`` that are on record, and why the others are not. None: all."""
        there = self._all(role)
        if wanted is None:
            if not there and (why := self.elsewhere()):
                raise InvalidArgumentError(f"{why}. Nothing was changed")
            return list(self.records[role]), {}
        owners = there if role is Role.OWNER else set(self.records[Role.OWNER])
        others = owners.difference(wanted)  # a name that was given too is not the one that was meant
        missing = {name: self._missing(name, role, owners, others) for name in wanted if name not in there}
        return [name for name in wanted if name in there], missing

    def _all(self, role: Role) -> set[str]:
        """The tenants on record, also those whose records are damaged."""
        return {*self.records[role], *(name for its, name in self.damaged if its is role)}

    def _missing(self, name: str, role: Role, owners: set[str], others: set[str]) -> str:
        if name in owners:
            return f"it has no {role}. To create one: {self.command('provision', name, role=role)}"
        if record := self.foreign(name, role):
            cluster, prefix = record.cluster, _prefix_of(record)
            if cluster not in (None, *self.called):
                home = safe(self._home_of(record))
                return f"on record for the cluster {home}: add --cluster {home}"
            return f"on record with another prefix: use {_prefix_option(prefix)}"
        meant = _nearest(name, others)
        return f"not on record{'' if meant is None else f'. Did you mean {safe(meant)}?'}"

    def unseen(self, wanted: Collection[str], role: Role) -> list[str]:
        """Those of ``wanted`` that have no record, and could get one."""
        able = wanted if role is Role.OWNER else self.records[Role.OWNER].keys() & wanted
        there = self._all(role)
        return [name for name in wanted if name in able and name not in there and not self.foreign(name, role)]

    def foreign(self, name: str, role: Role) -> OnRecord | None:
        """The record of a tenant of another cluster or prefix, if it has one."""
        return self.others.get((role, name))

    def _home_of(self, record: OnRecord) -> str | None:
        """What a command calls the cluster of a record. A cluster that was made again may have the name of one here."""
        home = home_of(record)
        return record.cluster if home in self.called.values() else home

    def elsewhere(self) -> str:
        """What the store has of other clusters or prefixes, if it has nothing of these; otherwise an empty text."""
        counts = Counter(map(self._home_of, self.others.values()))
        if any(self.records.values()) or not counts:
            return ""
        if prefixes := {str(_prefix_of(each)) for each in self.others.values() if each.cluster in self.called}:
            uses = map(_prefix_option, sorted(prefixes)[:FEW])
            return (
                f"{shown(self.place.store)} has tenants of {safe(self.cluster)} with another prefix alone: use "
                f"{' or '.join(uses)}"
            )
        ids = [f"{safe(cluster)} ({count})" for cluster, count in counts.most_common(FEW)]
        more = f" and {len(counts) - FEW} more" if len(counts) > FEW else ""
        place = evolve(self.place, clusters=list(map(str, counts))[:FEW])
        return (
            f"{shown(self.place.store)} has no tenants of {safe(self.cluster)}: its {counts.total()} records belong to "
            f"other clusters: {', '.join(ids)}{more}. To see them: "
            f"{command_line(['tenants', 'list', *given_options(place, Recorded)])}"
        )

    def credentials(self, wanted: Sequence[str] | None, role: Role) -> tuple[list[Credential], dict[str, str]]:
        """The credentials of ``wanted``, and why the others have none. None: all that have one."""
        names, missing = self.select(wanted, role)
        # A damaged record has none to use either.
        there = {name: self.records[role].get(name, OnRecord(name=name, role=role)) for name in names}
        if wanted is not None:
            missing |= {name: self._unusable(each) for name, each in there.items() if each.usable is None}
        return [each.usable for each in there.values() if each.usable is not None], missing

    def _unusable(self, record: OnRecord) -> str:
        """Why a tenant on record has no credential to use."""
        if is_suspended(record):
            return f"it is suspended. To give it its login back: {self.command('resume', record.name)}"
        return str(record.unusable()).removesuffix("; nothing was sent")

    def half_removed(self, names: Sequence[str], role: Role) -> list[str]:
        """Those of the names whose removal, with all data, was begun and not finished."""
        intents = {name: self.records[role][name].intent for name in names if name in self.records[role]}
        return [name for name, intent in intents.items() if intent is not None and intent.verb is Verb.REMOVE]

    def command(
        self,
        verb: str,
        *words: str,
        role: Role = Role.OWNER,
        clusters: Sequence[str] | None = None,
        again: bool = False,
    ) -> str:
        """Another command on the same tenants, to be copied, or with ``again`` this one on some of them.

        ``clusters``: only on these; None: on those of this command.
        """
        kind = Recorded if verb in ("list", "capacity") else type(self.place)
        place = self.place if clusters is None else evolve(self.place, clusters=[*clusters])
        return command_line(["tenants", verb, *words, *role_options(role), *given_options(place, kind, again=again)])

    def end(self, code: int) -> int:
        """Report the damaged records. Returns the exit code."""
        for role, name in self.damaged:
            complain_damaged(self.place.store, name, role)
        return Exit.UNUSABLE if self.damaged and code in (Exit.DONE, Exit.SOME_FAILED) else code


@frozen
class Entries:
    """All that a store has: the records with their tenants' names, and the tenants whose records are damaged."""

    records: list[OnRecord] = field(factory=list[OnRecord])
    damaged: list[tuple[Role, str]] = field(factory=list[tuple[Role, str]])

    def clusters(self) -> dict[str, str]:
        """The clusters on record: their names by their ids, or the ids where the names are not known."""
        credentials = [record.current or record.previous for record in self.records]
        names = {each.cluster: each.cluster_name for each in credentials if each is not None}
        ids = {record.cluster for record in self.records if record.cluster}
        return {id: names.get(id) or id for id in sorted(ids)}

    def find(self, wanted: Sequence[str]) -> dict[str, str] | None:
        """The ids of clusters that an operator names, with these names. None if the store does not know them all."""
        found = dict[str, str]()
        for each in wanted:
            ids = [each] if is_id(each) else [id for id, name in self.clusters().items() if name == each]
            if len(ids) != 1:
                return None
            found[ids[0]] = each
        return found


async def read_entries(store: Store) -> Entries:
    """Read a whole store."""
    entries = Entries()
    async for entry in read_all(store):
        if isinstance(entry, StoreError):
            name, role = tenant_of(entry.damaged[0])
            entries.damaged.append((role, name))
        else:
            entries.records.append(entry)
    return entries


def arranged(place: Recorded, store: Store, entries: Entries, called: Mapping[str, str]) -> Records:
    """What a command on ``place`` means of a store. Without ``called``, its clusters are those on record."""
    clusters = called or entries.clusters()
    records: dict[Role, dict[str, OnRecord]] = {role: {} for role in Role}
    others = dict[tuple[Role, str], OnRecord]()
    for record in entries.records:
        if record.cluster not in (None, *clusters) or _prefix_of(record) not in (None, place.prefix):
            others[record.role, record.name] = record
        elif not record.is_empty:
            records[record.role][record.name] = record
    return Records(place=place, store=store, called=clusters, records=records, damaged=entries.damaged, others=others)


def _prefix_option(prefix: str | None) -> str:
    return f"--prefix {quoted(prefix)}" if prefix else "no --prefix"


def _prefix_of(record: OnRecord) -> str | None:
    credential = record.current or record.previous
    if credential is None or credential.database is None:
        return None
    return credential.database.removesuffix(record.name)


def complain_damaged(where: str, name: str, role: Role) -> None:
    """Print that a record is damaged, and the command that removes it."""
    forget = command_line(["store", "forget", where, name, *role_options(role)])
    complain(f"{safe(name)}: its record is damaged. Restore the store, or remove it: {forget}", Exit.UNUSABLE)


def _nearest(name: str, others: Collection[str]) -> str | None:
    """The one of ``others`` that is nearest to ``name``; None if several are as near, or all are far."""
    if alike := [each for each in others if each.translate(_ALIKE) == name.translate(_ALIKE)]:
        return alike[0]
    near = [(SequenceMatcher(None, each, name).ratio(), each) for each in get_close_matches(name, others, 2, _NEAR)]
    return None if not near or (len(near) > 1 and near[0][0] == near[1][0]) else near[0][1]


def is_suspended(record: OnRecord, before: datetime | None = None) -> bool:
    """Whether a tenant is suspended, or was by then."""
    since = None if record.current is None else record.current.suspended
    return since is not None and (before is None or since <= before)


def is_awake(record: OnRecord) -> bool:
    """Whether a tenant is not suspended."""
    return not is_suspended(record)


def is_young(record: OnRecord, age: timedelta) -> bool:
    """Whether the tenant's credential is younger than ``age``."""
    since = None if record.current is None else record.current.since
    return since is not None and datetime.now(UTC) - since < age


def names_on_record(record: OnRecord) -> set[str]:
    """The tenant of a record, its database, and the logins of its credentials."""
    names = {name for each in record.credentials for name in (each.username, each.database)}
    return names | {record.name}


def waits_for_revoke(record: OnRecord) -> bool:
    """Whether the tenant was rotated, and its previous credential is not revoked."""
    return record.previous is not None and record.intent is None
