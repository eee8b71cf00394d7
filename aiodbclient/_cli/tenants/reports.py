"""What is printed of tenants: those that failed, those that were changed, and what helps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from attrs import define, field

from ...errors import ConflictError, NameTakenError, NotFoundError
from ...tenants import Role
from ...tenants._records import OperationKind
from ...tenants.errors import CapacityError, MoveError, RotationPendingError, SuspendedError
from ..plumbing.files import listed
from ..plumbing.options import suggest
from ..plumbing.printing import sized, some, took
from ..plumbing.progress import Report, called
from ..plumbing.records import is_suspended, read_entries
from .context import CommandContext
from .credentials import lines_of, row_of

if TYPE_CHECKING:
    from ...bulk import Action, Failed, Run
    from ...tenants import Problem

_UNDONE = {"rotate": "rotate", "provision": "provision", "prepare": "move", "move": "move"}  # what ``repair`` undoes


@define
class TenantReport(Report):
    """Prints tenants that failed, and what helps them."""

    context: CommandContext = field(kw_only=True)

    def reason(self, error: Exception) -> str:
        return self.context.named(super().reason(error))

    def hints(self, failed: Sequence[tuple[Failed, str]]) -> list[str]:
        groups = defaultdict[tuple[type[Exception], str, str | None], list[str]](list)
        for outcome, role in failed:
            named = (id for id in self.context.clusters if id in str(outcome.error))
            groups[type(outcome.error), role, next(named, None)].append(outcome.name)
        found = [(names, self._hint(*group, names)) for group, names in groups.items()]
        return [f"{some(names)}: {hint}" for names, hint in found if hint]

    def _hint(self, kind: type[Exception], role: str, cluster: str | None, names: Sequence[str]) -> str:
        """What helps these names, which failed in the same way, with the cluster that the error names."""
        context = self.context
        if kind is CapacityError:
            return f"use a higher --max-tenants, or add a --cluster. To see them: {context.suggest('capacity')}"
        if kind is NameTakenError:
            adopt = suggest(context.on_cluster(cluster), "tenants", "provision", *listed(names), "--adopt")
            return f"if another store has the tenant, use that store. To take over what exists, with all data: {adopt}"
        if kind in (ConflictError, NotFoundError) and {*names} <= {*context.records[Role.OWNER]}:
            return f"to see what helps: {context.suggest('check', *listed(names))}"
        if kind is NotFoundError:
            return "if another cluster has the database, add that --cluster. To create a new tenant, leave out --adopt"
        if kind is RotationPendingError:
            of_role = ["--role", role] if role != "owner" else []
            revoke = context.suggest("revoke-previous", *listed(names), *of_role)
            return f"the previous login still works. When no program uses it: {revoke}"
        if kind is SuspendedError:
            return f"to give the login back: {context.suggest('resume', *listed(names))}"
        if kind is MoveError and (leftovers := context.with_leftovers(names)) is not context.options:
            return f"to repair: {suggest(leftovers, 'tenants', 'repair', *listed(names))}"
        return ""

    def where(self, left: Sequence[str]) -> str:
        known = set(left) & {*self.context.records[Role.OWNER]}
        clusters = self.context.cluster_names_of(left) if known else self.context.cluster
        return f"{clusters}, or from another process that works on them"

    async def unfinished(self, run: Run[Any] | None) -> Sequence[str]:
        records = (await read_entries(self.context.store)).records
        return [called(each.name, each.operation.role or Role.OWNER) for each in records if each.operation is not None]


@define
class ChangeReport(TenantReport):
    """Prints changed tenants: credentials with ``show``, problems, and what to deliver."""

    show: bool = False

    def row(self, outcome: Any, role: str) -> dict[str, Any]:
        credential = outcome.credential
        row = {} if credential is None else row_of(credential, None, show=self.show, as_object=True)
        row["credential_changed"] = bool(self._delivery(outcome, role))
        if sessions := getattr(outcome, "sessions", 0):
            row["sessions"] = sessions
        row |= {"leftover": outcome.leftover} if getattr(outcome, "leftover", ()) else {}
        return row | ({"problems": list(map(str, outcome.problems))} if hasattr(outcome, "problems") else {})

    def text(self, outcome: Any, role: str) -> str:
        lines = list[str]()
        who, end = called(outcome.name, role), self._delivery(outcome, role)
        if problems := getattr(outcome, "problems", ()):
            fixed = self.context.named(", ".join(map(_describe, problems)))
            lines.append(f"{who}: {outcome.action}: {fixed}{end}")
        elif sessions := getattr(outcome, "sessions", 0):
            lines.append(f"{who}: {outcome.action}, {sessions} sessions of the previous login are open")
        elif outcome.action == "deleted" or (outcome.action in ("repaired", "resumed") and end):
            lines.append(f"{who}: {outcome.action}{end}{_describe_leftover(outcome)}")
        if self.show and outcome.credential is not None:
            lines.append(lines_of(outcome.credential))
        return "\n".join(lines)

    def _delivery(self, outcome: Any, role: str) -> str:
        """Say so if programs need another credential than they have; else return an empty text."""
        now, record = outcome.credential, self.context.records[Role(role)].get(outcome.name)
        before = None if record is None else record.current(Role(role))
        if now is None or outcome.record.suspended is not None or outcome.action in ("deleted", "suspended"):
            return ""
        if before is None or (before.username, before.password) != (now.username, now.password):
            return " (new credential: deliver it)"
        if any(each.kind == "unknown_login" for each in getattr(outcome, "problems", ())):
            return " (a login that is not on record, and may be newer, was ended: deliver the credential on record)"
        return ""


@define
class RotationReport(ChangeReport):
    skips_young: bool = False

    def summary(self, counts: Mapping[Action, int]) -> str:
        kept = sum(count for action, count in counts.items() if action == "kept")
        suspended = sum(is_suspended(each) for _, each in self.context.selected)
        reasons = ["suspended"] if suspended else []
        reasons += ["younger than --older-than"] if self.skips_young and kept > suspended else []
        said = f"{kept} kept"
        return super().summary(counts).replace(said, f"{said} ({' or '.join(reasons)})" if reasons else said)


@define
class MoveReport(ChangeReport):
    target: str = ""

    def row(self, outcome: Any, role: str) -> dict[str, Any]:
        moved = {"frozen": outcome.frozen.total_seconds(), "bytes": outcome.bytes, "leftover": outcome.leftover or None}
        return super().row(outcome, role) | moved | {"reason": self._why_kept(outcome)}

    def text(self, outcome: Any, role: str) -> str:
        if why := self._why_kept(outcome):
            return f"{outcome.name}: kept, {why}"
        end = " (new credential: deliver it)" if outcome.record.suspended is None else " (suspended)"
        left = f"; {outcome.leftover}" if outcome.leftover else ""
        frozen = took(outcome.frozen.total_seconds())
        operation = self.context.records[Role.OWNER][outcome.name].operation
        if operation is not None and operation.kind is OperationKind.MOVE:
            frozen += ", and before that since a move was interrupted"
        return f"{outcome.name}: moved, {sized(outcome.bytes)}, frozen for {frozen}{end}{left}"

    def _why_kept(self, outcome: Any) -> str | None:
        """Say why a tenant was not moved; None if it was."""
        if self.context.clusters.get(outcome.credential.cluster) != self.target:
            return f"with {sized(outcome.bytes)} it would be frozen for longer than --max-frozen"
        return None if outcome.action == "moved" else "it is there already"


def _describe_leftover(outcome: Any) -> str:
    """Name the databases that a removal left, since they are not the tenant's own."""
    left = getattr(outcome, "leftover", ())
    what = f"the tenant's objects in {', '.join(left)} stay, such as in a copy that you made"
    return f" ({what}. They belong to a role aiodbclient_gone_...)" if left else ""


def _describe(problem: Problem) -> str:
    """Describe a problem that was repaired."""
    again = _UNDONE.get(problem.detail) if problem.kind == "unfinished" else None
    return str(problem) if again is None else f"{problem} (undone: run {again} again)"
