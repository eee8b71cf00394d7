"""The slots that one of several processes holds until Valkey knows that they ended."""

from __future__ import annotations

from aiodbclient._pacing.shared.held import Ended, Held


def holding(*ids: str, most: int = 10) -> Held:
    held = Held(most)
    for number, slot in enumerate(ids):
        held.take([slot], float(number))
    return held


def test_the_slot_that_was_taken_first_ends_first() -> None:
    held = holding("a", "b", "c")
    assert (held.ids, held.in_flight, held.first_taken(9.0), held.unreported) == (["a", "b", "c"], 3, 0.0, False)

    assert held.end(7.0, sent=True)
    assert not held.end(8.0, sent=False)

    assert (held.ids, held.in_flight, held.first_taken(9.0), held.unreported) == (["c"], 1, 2.0, True)
    assert held.take_ended() == Ended([("a", 7.0)], ["b"])
    assert not held.unreported
    assert held.take_ended() == Ended([], [])
    held.end(9.0, sent=False)
    assert held.unreported
    assert held.first_taken(9.0) == 9.0


def test_a_refused_request_gives_its_slot_back_before_it_ends() -> None:
    held = holding("a", "b")
    held.refuse()
    assert (held.ids, held.in_flight) == (["b"], 2)
    assert held.take_ended() == Ended([], ["a"])

    assert not held.end(5.0, sent=True)  # the refused request
    assert (held.ids, held.in_flight, held.unreported) == (["b"], 1, False)
    assert held.end(6.0, sent=True)
    assert held.take_ended() == Ended([("b", 6.0)], [])
    held.refuse()
    assert held.in_flight == 0  # there was no request to refuse


def test_each_refused_request_is_in_flight_until_it_ends() -> None:
    held = holding("a", "b")
    held.refuse()
    held.refuse()
    assert (held.ids, held.in_flight) == ([], 2)


def test_a_request_that_was_not_sent_is_not_the_refused_one_while_there_is_another() -> None:
    held = holding("a", "b")
    held.refuse()
    assert not held.end(5.0, sent=False)
    assert (held.ids, held.in_flight) == ([], 1)
    assert held.take_ended() == Ended([], ["a", "b"])
    assert not held.end(6.0, sent=False)
    assert held.in_flight == 0


def test_reports_that_valkey_may_have_missed_are_sent_again_first() -> None:
    held = holding("a", "b", "c", "d")
    held.end(1.0, sent=True)
    held.end(2.0, sent=True)
    held.end(3.0, sent=False)
    ended = held.take_ended()
    held.end(4.0, sent=True)

    held.put_back(ended.answered, ended.unused)

    assert held.take_ended() == Ended([("a", 1.0), ("b", 2.0), ("d", 4.0)], ["c"])


def test_no_more_answers_are_remembered_than_count() -> None:
    held = holding("a", "b", "c", most=2)
    for now in (1.0, 2.0, 3.0):
        held.end(now, sent=True)
    ended = held.take_ended()
    assert ended == Ended([("b", 2.0), ("c", 3.0)], [])
    held.take(["d"], 4.0)
    held.end(5.0, sent=True)
    held.put_back(ended.answered, ended.unused)
    assert held.take_ended() == Ended([("c", 3.0), ("d", 5.0)], [])
