"""`rempart.routing.breaker`: closed, open, half-open, and what leads from one to another."""

from __future__ import annotations

import pytest

from rempart import limits
from rempart.routing.ask import Verdict
from rempart.routing.breaker import Breaker

FIRST_S = limits.breaker_open_first_s


def opened(now: float = 0.0) -> Breaker:
    breaker = Breaker()
    for _ in range(limits.breaker_failures):
        breaker.end(breaker.begin(), Verdict.GONE, "a", now)
    assert breaker.state(now) == "open"
    return breaker


def test_failures_in_a_row_open_it() -> None:
    breaker = Breaker()
    for _ in range(limits.breaker_failures - 1):
        breaker.end(0, Verdict.GONE, "a", 0.0)
    assert breaker.allows(0.0)
    breaker.end(0, Verdict.GONE, "a", 0.0)
    assert not breaker.allows(0.0)
    assert breaker.wait_s(1.0) == FIRST_S - 1.0


def test_a_success_between_them_begins_the_row_anew() -> None:
    breaker = Breaker()
    for _ in range(3):
        for _ in range(limits.breaker_failures - 1):
            breaker.end(0, Verdict.GONE, "a", 0.0)
        breaker.end(0, Verdict.SERVED, "a", 0.0)
    assert breaker.state(0.0) == "closed"


def test_the_rate_of_failures_opens_it_once_there_were_enough_exchanges() -> None:
    breaker = Breaker()
    for number in range(limits.breaker_window):
        assert breaker.allows(0.0), number
        breaker.end(0, Verdict.GONE if number % 2 else Verdict.SERVED, "a", 0.0)
    assert not breaker.allows(0.0)


def test_when_its_time_is_over_one_exchange_at_a_time_may_try() -> None:
    breaker = opened()
    assert not breaker.allows(FIRST_S - 0.1)
    assert breaker.state(FIRST_S) == "half-open"
    assert breaker.allows(FIRST_S)
    trial = breaker.begin()
    assert trial
    assert not breaker.allows(FIRST_S)
    breaker.end(trial, Verdict.SERVED, "a", FIRST_S + 1)
    assert breaker.state(FIRST_S + 1) == "closed"


def test_a_trial_that_fails_opens_it_for_twice_as_long_up_to_a_bound() -> None:
    breaker, now, pause_s = opened(), FIRST_S, FIRST_S
    for _ in range(10):
        breaker.end(breaker.begin(), Verdict.FAILED, "a", now)
        pause_s = min(pause_s * 2, limits.breaker_open_most_s)
        assert not breaker.allows(now + pause_s - 0.1)
        now += pause_s
        assert breaker.allows(now)


def test_after_it_healed_it_is_as_new() -> None:
    breaker = opened()
    breaker.end(breaker.begin(), Verdict.FAILED, "a", FIRST_S)
    breaker.end(breaker.begin(), Verdict.SERVED, "a", 100.0)
    for _ in range(limits.breaker_failures):
        assert breaker.allows(100.0)
        breaker.end(0, Verdict.GONE, "a", 100.0)
    assert breaker.allows(100.0 + FIRST_S)


def test_the_first_piece_of_a_trial_closes_it() -> None:
    breaker = opened()
    trial = breaker.begin()
    breaker.heard(trial)
    assert breaker.state(FIRST_S) == "closed"
    breaker.end(trial, Verdict.GONE, "a", FIRST_S)
    assert breaker.state(FIRST_S) == "closed"


def test_a_trial_that_says_nothing_leaves_it_half_open() -> None:
    breaker = opened()
    breaker.end(breaker.begin(), Verdict.NOTHING, "a", FIRST_S)
    assert breaker.state(FIRST_S) == "half-open"
    assert breaker.allows(FIRST_S)


@pytest.mark.parametrize("verdict", list(Verdict))
def test_exchanges_from_before_it_opened_say_nothing_new(verdict: Verdict) -> None:
    breaker = opened()
    breaker.heard(0)
    breaker.end(0, verdict, "a", 1.0)
    assert breaker.state(FIRST_S - 0.1) == "open"
    assert breaker.allows(FIRST_S)


def test_one_tenants_poisoned_prompt_does_not_open_it() -> None:
    breaker = Breaker()
    for _ in range(100):
        breaker.end(0, Verdict.FAILED, "a", 0.0)
    assert breaker.allows(0.0)
    for tenant in "bcde":
        breaker.end(0, Verdict.FAILED, tenant, 0.0)
    assert not breaker.allows(0.0)


def test_a_client_that_left_is_no_failure() -> None:
    breaker = Breaker()
    for _ in range(100):
        breaker.end(0, Verdict.NOTHING, "a", 0.0)
    assert breaker.state(0.0) == "closed"


def test_an_engine_that_was_started_again_begins_anew() -> None:
    breaker = opened()
    breaker.close()
    assert breaker.allows(0.0)
