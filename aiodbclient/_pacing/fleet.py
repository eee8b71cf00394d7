"""What one ask of a process does to the state that a fleet shares. Pure.

The state is read into a ``Ledger``, as ``RateBudget`` has one. What the process went through since its last ask happens
there again, then it takes slots, and the state is written back. A report can arrive twice, or its reply be lost: the
events have numbers, and what a process holds is a total.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from attrs import frozen

from .headers import Said
from .ledger import Ledger
from .state import Member, NonsenseError, State, load
from .window import Window

_LATENCY = 1.0  # seconds; nearly every answer takes less
_GRACE = 0.25  # seconds by which a process may ask later than it said, and still be granted its part
STEP = 0.02  # seconds between two asks of one process, at least
_STEP_OF_OTHERS = 0.005  # seconds more for each other process that waits


class Place(NamedTuple):
    """A place in a process's queue, 0 for the first, and for how many seconds the call there may still wait."""

    place: int
    bulk: bool
    patience: float


class Heard(NamedTuple):
    """An answer's headers, and since when its request may have been sent."""

    said: Said
    begun: float


class Event(NamedTuple):
    """What happened in one process: an answer's headers were read, or an answered request ended."""

    number: int
    at: float
    heard: Heard | None = None


@frozen
class Terms:
    """What all asks of one process say."""

    windows: Sequence[Window]  # the token's windows, the shortest first
    reserve: int  # how many slots bulk calls leave free for other calls
    share: float  # its fallback share
    probe: float  # the seconds between two of its asks while the server does not answer

    @property
    def longest_pause(self) -> float:
        """The seconds between two asks of a process that waits, at most."""
        return self.windows[0].seconds / 10


@frozen
class Ask:
    """One ask. ``now`` and the times of events are by the clock of the process."""

    process: str  # the name of the process
    now: float  # when it was sent
    number: int  # that of the last event of this process
    events: Sequence[Event]  # what happened in the longest window, the oldest first
    held: int  # the requests of this process in flight, without those that a 429 answered
    used: int  # the slots of the shortest window that it holds
    interactive: int  # how many of its calls wait in this lane
    bulk: int  # how many of its calls wait in this lane
    patient: bool  # whether the first of them has no ``max_wait``
    places: Sequence[Place]  # those of them that want to know how long they would wait
    leaves: bool  # whether it is the last ask of the process
    alone: float | None  # for how long it has used its fallback share, if it does; then it only reports
    last: str  # the state after its last ask, in case that the server has lost it
    reported: float  # when that was, by the server's clock
    acknowledged: int  # the number of the last event that it includes


@frozen
class Reply:
    """What an ask got."""

    state: str  # the state after it
    now: float  # the server's clock
    interactive: int  # slots for calls of this lane
    bulk: int  # slots for calls of this lane
    again: float  # for how many seconds nothing can change for the calls that got none
    waits: tuple[float, ...]  # for how many seconds the call at each of the places would wait
    used: tuple[int, ...]  # for each window: how many slots the processes hold, and others
    limits: tuple[int, ...]  # the limit of each window
    closed: float  # for how many seconds the gate is closed
    later: float  # the same, for calls without ``max_wait``
    recovering: float  # for how long nobody gets a slot, while the processes report what the server does not know
    lost: bool  # whether it had lost the state
    nonsense: str | None  # what was wrong with the state, if it was none


def change(terms: Terms, ask: Ask, text: str, now: float) -> Reply:
    """Do what ``ask`` asks for to the state ``text``, at the time ``now``. Raises NewerError."""
    state, lost, nonsense = _read(terms, ask, text, now)
    _recover(state, terms, ask, lost or nonsense is not None, now)
    me = state.members.setdefault(ask.process, Member())
    if me.number > ask.number:
        me.number = 0  # this process never reported that
    ledger = _replayed(state, me, ask, now)
    me.seen, me.held, me.used, me.share = now, ask.held, ask.used, terms.share
    recovering = max(0.0, state.recovered - now)
    turn = _Turn(ledger, me, state, terms, now, patient=ask.patient)
    interactive, bulk = (0, 0) if recovering or ask.alone is not None else turn.take(ask)
    granted = interactive + bulk
    waits = tuple(max(recovering, turn.wait(place, granted)) for place in ask.places)
    too_long = [
        place.bulk
        for place, wait in zip(ask.places, waits, strict=True)
        if place.place >= granted and wait > place.patience
    ]
    me.interactive = max(0, ask.interactive - interactive - too_long.count(False))
    me.bulk = max(0, ask.bulk - bulk - too_long.count(True))
    again = max(recovering, turn.again(only_bulk=not me.interactive))
    me.till = now + min(again, terms.longest_pause) + _GRACE
    if ask.leaves and not me.held:
        del state.members[ask.process]
    gate = ledger.gate
    return Reply(
        state=state.dump(now),
        now=now,
        interactive=interactive,
        bulk=bulk,
        again=again,
        waits=waits,
        used=tuple(ledger.in_flight + window.used(now) + window.of_others(now) for window in ledger.windows),
        limits=tuple(window.limit for window in ledger.windows),
        closed=max(0.0, gate.until - now),
        later=max(0.0, gate.later - now),
        recovering=recovering,
        lost=lost,
        nonsense=nonsense,
    )


def _read(terms: Terms, ask: Ask, text: str, now: float) -> tuple[State, bool, str | None]:
    """Read the state. Returns also whether it lacks what this process reported, and what was wrong with it."""
    state, nonsense = State(Ledger.of_fleet(terms.windows)), None
    if text:
        try:
            state = load(text, terms.windows, now)
        except NonsenseError as error:
            nonsense = str(error)
    me = state.members.get(ask.process)
    lost = now - ask.reported < terms.windows[-1].seconds and (
        me is None or me.number < ask.acknowledged or state.at < min(ask.reported, now) - 0.001
    )
    if lost and (nonsense or not text):
        state = load(ask.last, terms.windows, now)
    return state, lost, nonsense


def _recover(state: State, terms: Terms, ask: Ask, unknown: bool, now: float) -> None:
    """Grant nothing until all processes had time to report what is unknown here, or what they sent alone."""
    since = ask.reported if ask.alone is None else now - ask.alone
    if (unknown or (ask.alone is not None and state.at < since)) and state.recovered <= since:
        state.recovered = now + 4 * terms.probe
    state.recovered = min(state.recovered, now + 4 * terms.probe)


def _replayed(state: State, me: Member, ask: Ask, now: float) -> Ledger:
    """Return a ledger of all processes, in which the events that were not reported yet have happened."""
    lease = max(1.0, state.ledger.windows[0].seconds / 2)
    in_flight, leased = 0, list[float]()
    for member in state.members.values():
        if member is me:
            continue
        if now - member.seen <= _LATENCY:
            in_flight += member.held
        else:  # it may have died
            leased += [member.seen + lease] * member.held
    events = [event for event in ask.events if event.number > me.number]
    ended = sum(event.heard is None or event.heard.said.refused for event in events)
    answers = sorted([*(at / 1000 for at in state.answers), *leased])
    ledger = state.ledger
    ledger.restore(answers, in_flight + ask.held + ended, now)
    offset = now - ask.now
    for number, local, heard in events:
        at = local + offset
        me.number = number
        if heard is None:
            ledger.end(at, True)
            state.answers.append(math.ceil(at * 1000))
        else:
            ledger.hear(heard.said, at, heard.begun + offset)
            if heard.said.refused:
                ledger.end(at, False)
    state.answers.sort()
    return ledger


class _Turn:
    """What one process may take, while others wait too.

    Each process that waits may have an equal part of the shortest window, as long as it asks again in time. One that
    does not may be cut off and use its fallback share, so that share stays free for five shortest windows.
    """

    def __init__(self, ledger: Ledger, me: Member, state: State, terms: Terms, now: float, *, patient: bool) -> None:
        shortest = ledger.windows[0]
        waiting = [m for m in state.members.values() if m is not me and m.interactive + m.bulk]
        self._others = [member for member in waiting if member.till >= now]
        gone = [member for member in waiting if member.till < now <= member.till + 5 * shortest.seconds]
        self._kept = sum(int(shortest.limit * member.share) for member in gone)
        self._kept_for_bulk = self._kept + terms.reserve
        self._fair = math.ceil(shortest.limit / (len(self._others) + 1))
        self._ledger, self._me, self._now, self._patient = ledger, me, now, patient

    def take(self, ask: Ask) -> tuple[int, int]:
        """Take slots for calls of both lanes, and return how many."""
        wanted = [member.interactive for member in self._others]
        free = self._ledger.free(self._now, self._kept, patient=self._patient)
        interactive = self._take(self._part(ask.interactive, free, wanted), self._kept)
        if interactive < ask.interactive:
            return interactive, 0
        free = self._ledger.free(self._now, self._kept_for_bulk, patient=self._patient) - sum(wanted)
        part = self._part(ask.bulk, free, [member.bulk for member in self._others])
        return interactive, self._take(part, self._kept_for_bulk)

    def wait(self, place: Place, granted: int) -> float:
        """For how many seconds the call at ``place`` would wait, if the other processes are served side by side."""
        rank = place.place - granted
        if rank < 0:
            return 0.0
        before = sum(min(m.interactive + (m.bulk if place.bulk else 0), rank + 1) for m in self._others)
        reserve = self._kept_for_bulk if place.bulk else self._kept
        return self._ledger.opens(self._now, rank + before, reserve) - self._now

    def again(self, *, only_bulk: bool) -> float:
        """For how many seconds it is of no use to ask again."""
        step = max(STEP, self._ledger.windows[0].seconds / 1000) + _STEP_OF_OTHERS * len(self._others)
        reserve = self._kept_for_bulk if only_bulk else self._kept
        opens = self._ledger.opens(self._now, 0, reserve, patient=self._patient)
        return max(step, opens - self._now)

    def _part(self, wanted: int, free: float, of_others: Sequence[int]) -> float:
        """How many of the ``free`` slots: the fair part, or all that the others do not need if that is more."""
        due = sum(max(0, min(n, self._fair - m.used)) for n, m in zip(of_others, self._others, strict=True))
        return min(wanted, free, max(self._fair - self._me.used, free - due))

    def _take(self, most: float, reserve: int) -> int:
        taken = 0
        while taken < most and self._ledger.take(self._now, reserve, patient=self._patient):
            taken += 1
        self._me.held += taken
        self._me.used += taken
        return taken
