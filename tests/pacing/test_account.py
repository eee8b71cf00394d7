"""What each answer shows about a token: its limit, the slots of others, and when to pause."""

from __future__ import annotations

import math
from typing import Any

import pytest

from aiodbclient import Window
from aiodbclient._pacing.account import Account, OwnRequests
from aiodbclient._pacing.headers import Said

DOCUMENTED = (250, 60.0), (5000, 3600.0)


def account_of(*windows: tuple[int, float]) -> Account:
    return Account([Window(*window) for window in windows])


def ours(*used: int, in_flight: int = 0, least: int | None = None, most: int | None = None) -> OwnRequests:
    """Our answered requests, by window. By default the server counted exactly these."""
    counted = used[-1] + in_flight
    return OwnRequests(used, in_flight, counted if least is None else least, counted if most is None else most)


def held(account: Account, now: float) -> list[int]:
    """The estimated slots of others, by window."""
    return [window.others.at(now) for window in account.windows]


def hear(account: Account, limit: int | None, remaining: int | None, own: OwnRequests, now: float) -> None:
    """Receive an answer."""
    account.hear(Said(limit, remaining), own, now)


def refuse(
    account: Account,
    limit: int | None,
    remaining: int | None,
    own: OwnRequests,
    wait: float | None,
    *,
    burst: bool,
    now: float,
) -> None:
    """Receive a 429."""
    account.refuse(Said(limit, remaining, refused=True, wait=wait, burst=burst), own, now)


def counted(account: Account, many: int, mine: OwnRequests, now: float) -> None:
    """Receive an answer that shows this count in the longest window."""
    hear(account, account.windows[-1].limit, account.windows[-1].limit - many, mine, now)


# Answers.


def test_the_first_answer_shows_the_requests_of_others_in_the_hour() -> None:
    account = account_of(*DOCUMENTED)
    assert account.alone
    counted(account, 100, ours(0, 0, in_flight=1), 0.0)
    assert held(account, 0.0) == [0, 99]  # their send times are unknown, so the minute is unknown
    assert account.gate.at_most == 10
    assert not account.alone


def test_requests_that_may_be_ours_do_not_count_as_others() -> None:
    account = account_of(*DOCUMENTED)
    counted(account, 5, ours(2, 2, least=2, most=5), 0.0)
    assert (held(account, 0.0), account.gate.at_most, account.alone) == ([0, 0], math.inf, True)
    sure = account_of(*DOCUMENTED)
    counted(sure, 8, ours(2, 2, least=2, most=5), 0.0)
    assert held(sure, 0.0) == [0, 6]  # three belong to others, and six may


def test_two_answers_that_our_own_requests_explain_show_nobody_else() -> None:
    account = account_of(*DOCUMENTED)
    counted(account, 5, ours(5, 5), 0.0)
    counted(account, 7, ours(7, 7, least=5, most=7), 1.0)
    assert (held(account, 1.0), account.gate.at_most, account.alone) == ([0, 0], math.inf, True)


def test_requests_of_others_between_two_answers_count_in_every_window() -> None:
    account = account_of((100, 10.0), *DOCUMENTED)
    counted(account, 10, ours(10, 10, 10), 0.0)
    counted(account, 40, ours(10, 10, 10), 6.0)
    assert held(account, 6.0) == [30, 30, 30]
    counted(account, 45, ours(10, 10, 10), 8.0)
    assert held(account, 8.0) == [35, 35, 35]
    # After ten seconds, the first of the thirty has expired in the shortest window.
    assert [round(window.others.expected(13.0)) for window in account.windows] == [20, 35, 35]


def test_two_answers_just_a_window_apart_are_compared_and_two_further_apart_are_not() -> None:
    for apart, minute in ((60.0, 30), (60.1, 0)):
        account = account_of(*DOCUMENTED)
        counted(account, 10, ours(10, 10), 0.0)
        counted(account, 40, ours(0, 10), apart)
        assert held(account, apart) == [minute, 30]


def test_after_a_pause_what_is_believed_of_the_minute_is_not_from_before_it() -> None:
    account = account_of(*DOCUMENTED)
    counted(account, 10, ours(10, 10), 0.0)
    counted(account, 40, ours(10, 10), 6.0)
    counted(account, 90, ours(0, 10), 100.0)
    assert held(account, 100.0) == [0, 80]
    counted(account, 10, ours(0, 10), 200.0)
    assert held(account, 200.0) == [0, 0]
    assert account.alone


def test_others_that_have_gone_are_no_longer_counted_anywhere() -> None:
    account = account_of(*DOCUMENTED)
    counted(account, 10, ours(10, 10), 0.0)
    counted(account, 40, ours(10, 10), 6.0)
    counted(account, 22, ours(10, 10), 10.0)
    assert held(account, 10.0) == [12, 12]
    counted(account, 10, ours(10, 10), 20.0)
    assert held(account, 20.0) == [0, 0]


@pytest.mark.parametrize(("limit", "share"), [(2, 1), (10, 1), (31, 1), (32, 2), (250, 15)])
def test_a_share_of_the_minute_stays_ours_whatever_others_send(limit: int, share: int) -> None:
    account = account_of((limit, 60.0), (5000, 3600.0))
    counted(account, 10, ours(0, 10), 0.0)
    counted(account, 1000, ours(0, 10), 6.0)
    assert held(account, 6.0) == [limit - share, 990]


# Limits.


def test_a_limit_is_believed_when_two_answers_in_a_row_name_it() -> None:
    account = account_of(*DOCUMENTED)
    seen: list[tuple[int, bool]] = []
    for limit in (6000, 5000, 6000, 7000, 6000, 6000, 6000, 5000):
        hear(account, limit, limit - 10, ours(10, 10), 0.0)
        seen.append((account.windows[-1].limit, account.alone))
    doubted, known = [(5000, False)], [(5000, True)]
    assert seen == doubted + known + 3 * doubted + [(6000, False), (6000, True), (6000, False)]
    assert account.windows[0].limit == 250


def test_a_limit_that_is_not_believed_yet_says_nothing_of_others() -> None:
    account = account_of(*DOCUMENTED)
    hear(account, 6000, 10, ours(10, 10), 0.0)
    assert held(account, 0.0) == [0, 0]
    hear(account, 6000, 10, ours(10, 10), 0.0)
    assert held(account, 0.0) == [0, 5980]


@pytest.mark.parametrize(
    ("limit", "remaining", "believed"),
    [(10_000_000, 10_000_000, True), (10_000_001, 5, False), (0, 0, False), (4, 5, False), (5, 5, True), (1, 0, True)],
)
def test_only_a_limit_that_can_be_is_believed(limit: int, remaining: int, believed: bool) -> None:
    account = account_of(*DOCUMENTED)
    for _ in range(3):
        hear(account, limit, remaining, ours(0, 0), 0.0)
    assert account.windows[-1].limit == (limit if believed else 5000)


@pytest.mark.parametrize("given", [(None, None), (None, 0), (None, 4000), (5000, None)])
def test_half_of_what_was_asked_says_nothing(given: tuple[int | None, int | None]) -> None:
    account = account_of(*DOCUMENTED)
    hear(account, *given, ours(10, 10), 0.0)
    assert (held(account, 0.0), account.alone, account.windows[-1].limit) == ([0, 0], True, 5000)


def test_a_budget_of_one_window_does_not_take_the_hours_limit_for_its_own() -> None:
    account = account_of((250, 60.0))
    for _ in range(3):
        hear(account, 5000, 1, ours(10), 0.0)
    assert (account.windows[0].limit, held(account, 0.0)) == (250, [0])
    counted(account, 50, ours(10), 0.0)
    assert held(account, 0.0) == [40]
    assert held(account, 15.0) == [28]  # no 429 confirmed it, so it falls at once


def test_of_three_windows_the_headers_are_about_the_longest() -> None:
    three = (20, 1.0), *DOCUMENTED
    named, refused, beside = account_of(*three), account_of(*three), account_of(*three)
    for _ in range(2):
        hear(named, 6000, 5990, ours(10, 10, 10), 0.0)
    assert [window.limit for window in named.windows] == [20, 250, 6000]

    refuse(refused, 5000, 0, ours(5, 200, 4000, in_flight=1), 7.0, burst=False, now=0.0)
    assert held(refused, 0.0) == [0, 0, 1000]  # and not the minute, though it has less room

    refuse(beside, 5000, 4888, ours(10, 100, 100, in_flight=2), 1.0, burst=True, now=0.0)
    assert held(beside, 0.0) == [9, 0, 10]
    assert [window.others.steady for window in beside.windows] == [True, True, False]


def test_without_windows_nothing_is_learned_but_when_to_stay_away() -> None:
    account = account_of()
    account.starts(0.0)
    hear(account, 5000, 0, OwnRequests((), 1, 0, 0), 0.0)
    assert (account.alone, account.gate.at_most) == (True, math.inf)
    refuse(account, 5000, 0, OwnRequests((), 1, 0, 0), 7.0, burst=True, now=0.0)
    assert (account.gate.until, account.gate.at_most) == (7.0, 1)


# A full window.


def test_the_answer_that_fills_a_window_is_about_the_one_with_the_fewest_slots_left() -> None:
    minute = account_of(*DOCUMENTED)
    counted(minute, 5000, ours(100, 300, in_flight=1), 0.0)
    assert held(minute, 0.0) == [149, 0]
    hour = account_of(*DOCUMENTED)
    counted(hour, 5000, ours(10, 4990, in_flight=1), 0.0)
    assert held(hour, 0.0) == [0, 9]
    known = account_of(*DOCUMENTED)
    known.windows[-1].others.believe(4600, 0.0)
    counted(known, 5000, ours(100, 300, in_flight=1), 0.0)
    assert held(known, 0.0) == [0, 4699]


def test_our_own_requests_fill_a_window_without_anybody_else() -> None:
    account = account_of(*DOCUMENTED)
    counted(account, 5000, ours(249, 249, in_flight=1), 0.0)
    assert (held(account, 0.0), account.gate.at_most, account.alone) == ([0, 0], math.inf, True)


def test_a_429_without_headers_is_of_the_minute_and_others_hold_what_we_do_not() -> None:
    account = account_of(*DOCUMENTED)
    refuse(account, None, None, ours(100, 100, in_flight=5), 7.0, burst=True, now=0.0)
    assert held(account, 0.0) == [146, 0]  # the refused request took no slot
    assert held(account, 60.0) == [146, 0]  # it is certain, so nothing else is tried for a minute
    assert (account.gate.until, account.gate.at_most, account.alone) == (7.0, 1, False)


def test_a_share_stays_ours_of_a_minute_that_others_filled() -> None:
    account = account_of(*DOCUMENTED)
    refuse(account, None, None, ours(0, 0, in_flight=1), 7.0, burst=True, now=0.0)
    assert held(account, 0.0) == [235, 0]


def test_a_429_of_a_budget_of_one_window_is_of_that_one() -> None:
    account = account_of((10, 60.0))
    refuse(account, None, None, ours(4, in_flight=1), 7.0, burst=True, now=0.0)
    assert held(account, 0.0) == [6]
    told = account_of((10, 60.0))
    refuse(told, 10, 3, ours(4, in_flight=1), 7.0, burst=True, now=0.0)
    assert held(told, 0.0) == [3]  # the server counted two, and not yet those in flight


def test_a_429_with_nothing_left_is_of_the_hour_unless_it_names_a_moment_that_only_the_minute_has() -> None:
    hour = account_of(*DOCUMENTED)
    refuse(hour, 5000, 0, ours(10, 4000, in_flight=1), 7.0, burst=False, now=0.0)
    assert held(hour, 0.0) == [0, 1000]
    minute = account_of(*DOCUMENTED)
    refuse(minute, 5000, 0, ours(10, 4000, in_flight=1), 7.0, burst=True, now=0.0)
    assert held(minute, 0.0) == [235, 0]
    unknown = account_of(*DOCUMENTED)
    refuse(unknown, 6000, 0, ours(10, 4000, in_flight=1), 7.0, burst=False, now=0.0)
    assert held(unknown, 0.0) == [235, 0]


def test_others_hold_no_more_of_the_minute_than_of_the_hour() -> None:
    account = account_of(*DOCUMENTED)
    refuse(account, 5000, 4800, ours(100, 100, in_flight=2, least=100), 7.0, burst=True, now=0.0)
    assert held(account, 0.0) == [102, 100]
    busy = account_of(*DOCUMENTED)
    refuse(busy, 5000, 1000, ours(100, 100, in_flight=2, least=100), 7.0, burst=True, now=0.0)
    assert held(busy, 0.0) == [149, 3900]


def test_a_429_of_a_limit_that_is_not_believed_says_only_that_the_minute_is_full() -> None:
    account = account_of(*DOCUMENTED)
    refuse(account, 6000, 4800, ours(100, 100, in_flight=2), 7.0, burst=True, now=0.0)
    assert held(account, 0.0) == [149, 0]


def test_the_shortest_of_two_windows_that_others_fill_is_the_fuller_one() -> None:
    account = account_of((20, 1.0), (250, 60.0), (5000, 3600.0))
    refuse(account, None, None, ours(5, 200, 200, in_flight=1), 1.0, burst=True, now=0.0)
    assert held(account, 0.0) == [15, 0, 0]
    account = account_of((20, 1.0), (250, 60.0), (5000, 3600.0))
    refuse(account, None, None, ours(5, 240, 240, in_flight=1), 1.0, burst=True, now=0.0)
    assert held(account, 0.0) == [0, 10, 0]


def test_a_second_429_does_not_lower_what_is_believed_and_can_confirm_it() -> None:
    account = account_of(*DOCUMENTED)
    refuse(account, None, None, ours(100, 100, in_flight=5), 7.0, burst=True, now=0.0)
    refuse(account, None, None, ours(150, 150, in_flight=5), 7.0, burst=True, now=1.0)
    assert held(account, 1.0) == [146, 0]
    refuse(account, None, None, ours(100, 100, in_flight=5), 7.0, burst=True, now=30.0)
    assert held(account, 90.0) == [146, 0]


def test_a_429_that_one_request_of_others_explains_shows_that_one() -> None:
    account = account_of(*DOCUMENTED)
    refuse(account, None, None, ours(249, 249, in_flight=1), 7.0, burst=True, now=0.0)
    assert held(account, 0.0) == [1, 0]


# The gate.


@pytest.mark.parametrize(
    ("windows", "few"),
    [
        (DOCUMENTED, 10),
        (((1000, 60.0), (5000, 3600.0)), 40),
        (((30, 60.0),), 4),
        (((120, 60.0),), 4),
        (((5000, 60.0), (300, 3600.0)), 12),
    ],
)
def test_beside_others_a_25th_of_the_smallest_limit_may_be_in_flight(windows: Any, few: int) -> None:
    account = account_of(*windows)
    assert account.gate.at_most == math.inf
    account.gate.careful()
    assert account.gate.at_most == few


def test_after_a_pause_a_few_go_until_the_first_answer_shows_that_nobody_else_sends() -> None:
    account = account_of((100, 60.0), (5000, 3600.0))
    account.starts(0.0)  # no answer was ever received
    assert account.gate.at_most == 10  # not 4: no one fills a window in such a short time
    account.answered(1.0)
    assert account.gate.at_most == math.inf
    account.starts(7.0)  # less than a tenth of the window has passed
    assert account.gate.at_most == math.inf
    account.starts(7.1)
    assert account.gate.at_most == 10


def test_beside_others_each_answer_after_a_429_lets_one_more_go_up_to_a_few() -> None:
    account = account_of(*DOCUMENTED)
    refuse(account, None, None, ours(100, 100, in_flight=5), 7.0, burst=True, now=0.0)
    account.answered(6.9)  # answers of requests in flight do not open it
    assert account.gate.at_most == 1
    allowed: list[float] = []
    for _ in range(11):
        account.answered(7.0)
        allowed.append(account.gate.at_most)
    assert allowed == [2, 3, 4, 5, 6, 7, 8, 9, 10, 10, 10]
    account.answered(125.0)  # there is no other client any more
    assert account.gate.at_most == math.inf
