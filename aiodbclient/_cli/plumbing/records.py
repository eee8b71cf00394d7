"""Read the records of a store, and select those that a command is for."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from functools import cached_property
from typing import TYPE_CHECKING

from attrs import evolve, field, frozen

from ...errors import InvalidArgumentError
from ...tenants import Role
from ...tenants._credential import Credential
from ...tenants._records import TenantRecord, TenantState, unusable
from ...tenants._stores import entries_of
from ...tenants.errors import StoreError
from .failures import Exit
from .files import listed
from .opening import is_id, shown
from .options import CLUSTER_VARIABLE, PREFIX_VARIABLE, StoreOptions, given, suggest
from .printing import FEW, note

if TYPE_CHECKING:
    from ...tenants import Store

_NEAR = 0.75  # how similar a suggested name must be


@frozen
class Entries:
    """All that a store has: the records, and the tenants whose records are damaged."""

    records: list[TenantRecord] = field(factory=list[TenantRecord])
    damaged: list[str] = field(factory=list[str])
    store: str = ""  # as it was given

    def clusters(self) -> dict[str, str]:
        """The clusters on record: their names by their ids, and their ids where two have the same name."""
        names = {each.cluster: each.cluster_name for each in self.records}
        count = Counter(names.values())
        known = {id: name if count[name] == 1 else id for id, name in names.items()}
        return dict(sorted(known.items(), key=lambda each: each[1]))

    def find(self, wanted: Sequence[str]) -> dict[str, str] | None:
        """Return the names of clusters by id, or None if the store does not know all of them."""
        known, found = self.clusters(), dict[str, str]()
        for each in wanted:
            ids = [id for id, name in known.items() if each in (id, name)]
            if len(ids) != 1 and not is_id(each):
                return None
            id = ids[0] if ids else each
            found[id] = known.get(id, each)
        return found

    def end(self, code: int) -> int:
        """Print which records are damaged, and return ``code``, or UNUSABLE in place of a lower one if any is."""
        for name in self.damaged:
            forget = forget_command(self.store, [name])
            note(f"{name}: its record is damaged. Restore the store, or remove the record: {forget}")
        return Exit.UNUSABLE if self.damaged and code <= Exit.SOME_FAILED else code


def forget_command(store: str, which: Sequence[str]) -> str:
    """The command that removes these records."""
    return suggest(StoreOptions(store=store, prefix=os.environ.get(PREFIX_VARIABLE, "")), "store", "forget", *which)


async def read_entries(store: Store, where: str = "") -> Entries:
    entries = Entries(store=where)
    async for entry in entries_of(store):
        if isinstance(entry, StoreError):
            entries.damaged.append(entry.damaged[0])
        else:
            entries.records.append(entry)
    return entries


@frozen(kw_only=True, slots=False)  # for cached properties
class Records:
    """What the store of ``options`` has on record for some clusters."""

    options: StoreOptions
    store: Store
    entries: Entries
    clusters: Mapping[str, str]  # the name of each, by its id

    @cached_property
    def records(self) -> Mapping[Role, Mapping[str, TenantRecord]]:
        """The records of these clusters and of the prefix, by role and by the names of the tenants."""
        own = [each for each in self.entries.records if not self._is_other(each)]
        return {role: {each.name: each for each in own if has_role(each, role)} for role in Role}

    @cached_property
    def others(self) -> Mapping[tuple[Role, str], TenantRecord]:
        others = [each for each in self.entries.records if self._is_other(each)]
        return {(role, each.name): each for each in others for role in Role if has_role(each, role)}

    def _is_other(self, record: TenantRecord) -> bool:
        """Whether a record is of another cluster or prefix."""
        return record.cluster not in self.clusters or _prefix_of(record) != self.options.prefix

    @property
    def cluster(self) -> str:
        return ", ".join(self.clusters.values())

    def cluster_columns(self, cluster: str | None, *, as_json: bool) -> dict[str, object]:
        """Return the columns of a tenant's cluster: its name, and in JSON its id too."""
        name = self.clusters.get(cluster or "")
        return {"cluster": cluster, "cluster_name": name} if as_json else {"cluster": name}

    def cluster_names_of(self, names: Collection[str], role: Role = Role.OWNER) -> str:
        """The names of the clusters of these tenants."""
        ids = {record.cluster for name, record in self.records[role].items() if name in names}
        return ", ".join(name for id, name in self.clusters.items() if id in ids) or self.cluster

    def select(
        self, wanted: Sequence[str] | None, role: Role, *, corrects: bool = True
    ) -> tuple[list[str], dict[str, str]]:
        """Select the names that are on record, or all for None, and say why the others are not.

        It ``corrects`` a misspelled name, unless the command destroys something.
        """
        known = {*self.records[role], *(self.entries.damaged if role is Role.OWNER else ())}
        if wanted is None:
            if not known and (why := self.only_others()):
                raise InvalidArgumentError(f"{why}. Nothing was changed")
            self.say_how_many(role)
            return list(self.records[role]), {}
        # A name that was also given is no correction. To compare one with 4,000 names takes 0.2 s, so few are compared.
        missing, candidates = dict[str, str](), self.records[Role.OWNER].keys() - set(wanted)
        for name in wanted:
            if name not in known:
                missing[name] = self.why_missing(name, role, candidates if corrects and len(missing) < FEW else ())
        return [name for name in wanted if name in known], missing

    def say_how_many(self, *roles: Role) -> None:
        """Say so if the environment narrows the clusters."""
        if self.others and self.options.clusters and given(self.options)[:1] != ["--cluster"]:
            count = sum(len(self.records[role]) for role in roles)
            total = count + sum(role in roles for role, _ in self.others)
            note(f"{count} of {total}: {CLUSTER_VARIABLE}={','.join(self.options.clusters)}")

    def why_missing(self, name: str, role: Role, candidates: Collection[str] = ()) -> str:
        if role is not Role.OWNER and name in self.records[Role.OWNER]:
            return f"it has no {role}. To create one: {self.suggest('provision', name, '--role', role.value)}"
        if record := self.others.get((role, name)):
            if record.cluster not in self.clusters:
                cluster = self.entries.clusters()[record.cluster]
                return f"on record for the cluster {cluster}: add --cluster {cluster}"
            return f"on record with {_prefix_option(_prefix_of(record))}"
        meant = _nearest(name, candidates)
        return f"not on record{'' if meant is None else f'. Did you mean {meant}?'}"

    def only_others(self) -> str:
        """Describe the records of other clusters or prefixes, if there are no others; else return an empty text."""
        if any(self.records.values()) or not self.others:
            return ""
        store, others = shown(self.options.store), [*self.others.values()]
        if prefixes := {_prefix_of(each) for each in others if each.cluster in self.clusters}:
            uses = " or ".join(map(_prefix_option, sorted(map(str, prefixes))[:FEW]))
            return f"{store} has tenants of {self.cluster} only with {uses}"
        counts = Counter(self.entries.clusters()[each.cluster] for each in others)
        clusters = ", ".join(f"{name} ({count})" for name, count in counts.most_common(FEW))
        return f"{store} has no tenants of {self.cluster}: its {len(others)} records are of other clusters: {clusters}"

    def credentials(self, wanted: Sequence[str] | None, role: Role) -> tuple[list[Credential], dict[str, str]]:
        """Return the credentials of ``wanted``, or of all for None, and why the others have none."""
        names, missing = self.select(wanted, role)
        credentials = list[Credential]()
        for name in names:
            record = self.records[role].get(name)  # a damaged one has no credential
            if record is not None and (credential := record.credential(role)) is not None:
                credentials.append(credential)
            elif wanted is not None:
                missing[name] = self._why_unusable(record, name, role)
        return credentials, missing

    def _why_unusable(self, record: TenantRecord | None, name: str, role: Role) -> str:
        if record is not None and is_suspended(record):
            return f"it is suspended. To give it its login back: {self.suggest('resume', name)}"
        return str(unusable(record, name, role)).removesuffix("; nothing was sent")

    def half_removed(self, names: Collection[str], role: Role = Role.OWNER) -> list[str]:
        """Those of the names whose removal, with all data, was begun and not finished."""
        found = [record for name, record in self.records[role].items() if name in names]
        return [each.name for each in found if each.state(role) is TenantState.REMOVING]

    def suggest(self, command: str, *words: str) -> str:
        """Another command on the same tenants, to be copied."""
        return suggest(self.options, "tenants", command, *words)

    def suggest_adoption(self, names: Sequence[str], cluster: str | None = None) -> str:
        """The commands that replace stale records by what a cluster has."""
        which = listed(names)
        adopt = suggest(self.on_cluster(cluster), "tenants", "provision", *which, "--adopt")
        return f"{forget_command(self.options.store, which)} && {adopt}"

    def on_cluster(self, cluster: str | None) -> StoreOptions:
        """The options that lead another command to one of the clusters, by its name or id; None: to all."""
        clusters = self.clusters.values() if cluster is None else [self.clusters.get(cluster, cluster)]
        return evolve(self.options, clusters=[*clusters])


def has_role(record: TenantRecord, role: Role) -> bool:
    return record.state(role) is not TenantState.ABSENT


def is_suspended(record: TenantRecord, before: datetime | None = None) -> bool:
    """Whether a tenant is suspended, or was by then."""
    since = record.suspended
    return since is not None and (before is None or since <= before)


def is_young(record: TenantRecord, role: Role, age: timedelta | None) -> bool:
    """Whether the newest login of a role is younger than ``age``."""
    login = record.current(role)
    return age is not None and login is not None and datetime.now(UTC) - login.created < age


def names_on_record(record: TenantRecord) -> set[str]:
    """The tenant of a record, its database, and its logins."""
    return {record.name, record.database, *(each.username for each in record.logins)}


def _prefix_option(prefix: str | None) -> str:
    return f"--prefix {prefix}" if prefix else "no --prefix"


def _prefix_of(record: TenantRecord) -> str:
    return record.database.removesuffix(record.name)


def _nearest(name: str, others: Collection[str]) -> str | None:
    """Return the one of ``others`` that is similar; None if there is none, or several."""
    near = get_close_matches(name, others, 2, _NEAR)
    return near[0] if len(near) == 1 else None
