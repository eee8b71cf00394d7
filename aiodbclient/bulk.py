"""Bulk runs: ``Run``, its outcomes, and ``BulkError``. ``X as X`` exports a name to type checkers."""

from ._bulk.outcomes import Action as Action
from ._bulk.outcomes import BulkError as BulkError
from ._bulk.outcomes import DatabaseDone as DatabaseDone
from ._bulk.outcomes import DatabaseOutcome as DatabaseOutcome
from ._bulk.outcomes import Failed as Failed
from ._bulk.outcomes import Outcome as Outcome
from ._bulk.outcomes import Outcomes as Outcomes
from ._bulk.outcomes import RemovalOutcome as RemovalOutcome
from ._bulk.outcomes import Removed as Removed
from ._bulk.outcomes import UserDone as UserDone
from ._bulk.outcomes import UserOutcome as UserOutcome
from ._bulk.run import Run as Run
