"""What one process of several holds, and what it has heard, until Valkey and the others know of it."""

from __future__ import annotations

import math
from typing import Any

from aiodbclient import Window
from aiodbclient._pacing.account import Account, Ours, sliding
from aiodbclient._pacing.shared.backlog import Backlog
from aiodbclient._pacing.shared.held import Ended, Held
from aiodbclient._pacing.shared.messages import Reply


def holding(*ids: str, most: int = 10) -> Held:
    held = Held(most)
    for number, slot in enumerate(ids):
        held.take([slot], float(number))
    return held


def test_the_slot_that_was_taken_first_ends_first() -> None:
    held = holding("a", "b", "c")
    assert (held.ids, held.in_flight, held.first_taken(9.0), held.untold) == (["a", "b", "c"], 3, 0.0, False)

    assert held.end(7.0, sent=True)
    assert not held.end(8.0, sent=False)

    assert (held.ids, held.in_flight, held.first_taken(9.0), held.untold) == (["c"], 1, 2.0, True)
    assert held.take_ended() == Ended([("a", 7.0)], ["b"])
    assert not held.untold
    assert held.take_ended() == Ended([], [])
    held.end(9.0, sent=False)
    assert held.untold
    assert held.first_taken(9.0) == 9.0


def test_a_refused_request_gives_its_slot_back_before_it_ends() -> None:
    held = holding("a", "b")
    held.refuse()
    assert (held.ids, held.in_flight) == (["b"], 2)
    assert held.take_ended() == Ended([], ["a"])

    assert not held.end(5.0, sent=True)  # the refused one
    assert (held.ids, held.in_flight, held.untold) == (["b"], 1, False)
    assert held.end(6.0, sent=True)
    assert held.take_ended() == Ended([("b", 6.0)], [])
    held.refuse()
    assert held.in_flight == 0  # there was none to refuse


def test_a_request_that_was_not_sent_is_not_the_refused_one_while_there_is_another() -> None:
    held = holding("a", "b")
    held.refuse()
    assert not held.end(5.0, sent=False)
    assert (held.ids, held.in_flight) == ([], 1)
    assert held.take_ended() == Ended([], ["a", "b"])
    assert not held.end(6.0, sent=False)
    assert held.in_flight == 0


def test_what_valkey_may_not_have_heard_is_told_again_and_first() -> None:
    held = holding("a", "b", "c", "d")
    held.end(1.0, sent=True)
    held.end(2.0, sent=True)
    held.end(3.0, sent=False)
    ended = held.take_ended()
    held.end(4.0, sent=True)

    held.put_back(ended.answered, ended.unused)

    assert held.take_ended() == Ended([("a", 1.0), ("b", 2.0), ("d", 4.0)], ["c"])
    held.put_back(ended.answered, [])
    held.replace_answered([("x", 9.0)])
    assert held.take_ended() == Ended([("x", 9.0)], [])


def test_no_more_answers_are_remembered_than_count() -> None:
    held = holding("a", "b", "c", most=2)
    for now in (1.0, 2.0, 3.0):
        held.end(now, sent=True)
    assert held.take_ended() == Ended([("b", 2.0), ("c", 3.0)], [])


class Learner(Account):
    """Keeps what it is told, in the place of learning from it."""

    __slots__ = ("told",)

    def __init__(self) -> None:
        super().__init__(sliding([Window(10, 60.0), Window(100, 3600.0)]))
        self.told: list[Any] = []

    def hear(self, limit: int | None, remaining: int | None, ours: Ours, now: float) -> None:
        self.told.append((limit, remaining, ours, now))

    def refuse(
        self, limit: int | None, remaining: int | None, ours: Ours, wait: float | None, *, burst: bool, now: float
    ) -> None:
        self.told.append((limit, remaining, ours, wait, burst, now))


REPLY: dict[str, Any] = dict.fromkeys(["epoch", "now", "interactive", "bulk", "wait", "waits", "used", "recovering"])
REPLY |= {"version": 1, "stale": False, "facts": None}


def test_what_was_heard_is_learned_with_the_next_reply_in_its_order() -> None:
    backlog, account = Backlog(), Learner()
    assert not backlog
    backlog.hear(5.0, 1.0, 3.0, None, None)  # says nothing of the limit
    assert not backlog
    assert (backlog.busy_since(9.0), backlog.sent(9.0)) == (9.0, 9.0)

    backlog.hear(5.0, 2.0, 4.0, 100, 50)
    backlog.refuse(6.0, 3.0, 100, 0, 7.0, burst=True)
    backlog.hear(7.0, 1.0, 5.0, 100, 49)
    assert backlog
    assert (backlog.busy_since(9.0), backlog.sent(9.0)) == (1.0, 3.0)

    account.last_answer, account.alone = 8.0, False
    backlog.learn(account, Reply(**REPLY, counted=(1, 2), in_flight=3, least=4, most=6))

    ours = Ours((1, 2), 3, 5, 6)
    refused = Ours((1, 2), 4, 5, 6)
    assert account.told == [(100, 50, ours, 5.0), (100, 0, refused, 7.0, True, 6.0), (100, 49, ours, 7.0)]
    assert account.last_count == -math.inf
    backlog.forget()
    assert not backlog

    account.alone = True
    backlog.learn(account, Reply(**REPLY, counted=(1, 2), in_flight=3, least=4, most=6))
    assert account.last_count == 8.0


def test_answers_open_the_gate_again_where_others_changed_the_facts() -> None:
    backlog = Backlog()
    backlog.answered(10.0)
    backlog.answered(20.0)
    for _ in range(2):
        account = Learner()
        account.gate.at_most = 1
        backlog.apply_answers(account)
        assert (account.gate.at_most, account.last_answer) == (3, 20.0)

    account.last_answer = 17.5
    backlog.apply_answers(account)
    assert account.last_answer == 17.5  # 2.5 s later is not worth telling
    account.last_answer = 17.0
    backlog.apply_answers(account)
    assert account.last_answer == 20.0

    backlog.forget_answers()
    account = Learner()
    account.gate.at_most = 1
    backlog.apply_answers(account)
    assert account.gate.at_most == 1
