"""Which of our own requests the server had counted when it answered, as one process knows them."""

from __future__ import annotations

from aiodbclient import Window
from aiodbclient._pacing.account import Account, OwnRequests
from aiodbclient._pacing.headers import Said
from aiodbclient._pacing.ledger import Ledger


class Listening(Account):
    """An account that notes what it learns of our own requests."""

    heard: OwnRequests

    def hear(self, said: Said, own: OwnRequests, now: float) -> None:
        self.heard = own

    def refuse(self, said: Said, own: OwnRequests, now: float) -> None:
        self.heard = own


def ledger_of(*answered_at: float) -> tuple[Ledger, Listening]:
    """A ledger of ten and of a hundred seconds, and what its account hears."""
    account = Listening([Window(50, 10.0), Window(1000, 100.0)])
    ledger = Ledger(account)
    for moment in answered_at:
        assert ledger.take(moment, 0)
        ledger.end(moment, sent=True)
    return ledger, account


def hear(ledger: Ledger, now: float) -> None:
    ledger.hear(Said(1000, 500), now)  # half of the window: more than ours


def test_the_first_answer_counts_its_own_request() -> None:
    ledger, account = ledger_of()
    ledger.take(0.0, 0)
    hear(ledger, 1.0)
    assert account.heard == OwnRequests((0, 0), in_flight=1, least=1, most=1)


def test_the_server_counted_what_held_a_slot_at_some_moment_since_the_request_was_sent() -> None:
    ledger, account = ledger_of(0.0, 11.0, 20.0, 25.0, 30.0, 50.0, 102.0, 107.0)
    ledger.take(110.0, 0)
    ledger.take(112.0, 0)
    hear(ledger, 115.0)
    # Two and seven held a slot at 110.0. Those up to 25.0 expire within a tenth of the window, so the server
    # may have dropped them already.
    assert account.heard == OwnRequests((2, 7), in_flight=2, least=4 + 1, most=7 + 2)


def test_a_refused_request_is_in_flight_but_was_not_counted() -> None:
    ledger, account = ledger_of()
    for _ in range(3):
        ledger.take(0.0, 0)
    ledger.hear(Said(1000, 500, refused=True, wait=7.0, burst=True), 1.0)
    assert account.heard.in_flight == 3  # the account knows that one of them was refused
    hear(ledger, 1.0)
    assert account.heard == OwnRequests((0, 0), in_flight=2, least=1, most=3)
    ledger.end(1.0, sent=True)
    hear(ledger, 1.0)
    assert account.heard == OwnRequests((0, 0), in_flight=2, least=1, most=2)


def test_an_answer_that_is_read_after_its_request_ended_is_understood() -> None:
    ledger, account = ledger_of(0.0)
    hear(ledger, 5.0)
    assert account.heard == OwnRequests((1, 1), in_flight=0, least=1, most=1)
