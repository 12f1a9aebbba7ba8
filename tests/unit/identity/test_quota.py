"""`rempart.identity.quota`: no key passes its limits, neither side by side nor by moving the clock."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rempart.errors import QuotaExceeded, RateLimited
from rempart.identity.caller import Caller, Limits
from rempart.identity.quota import Meter, Reservation, Wanted

_DAY_S = 86_400
NOW = 20_000 * _DAY_S + 30.0
"""Half a minute into a UTC day."""


def caller(key: str = "one", *, requests: int | None = None, tokens: int | None = None) -> Caller:
    limits = Limits(requests_per_minute=requests, tokens_per_day=tokens)
    return Caller(key=key, actor="a", role="user", limits=limits)


def admit(
    meter: Meter, by: Caller, tokens: int, now: float, *, prompt: int = 0, choices: int = 1, steady: float | None = None
) -> Reservation:
    """The steady clock goes with the other one unless a test says otherwise."""
    wanted = Wanted(prompt=prompt, completion=tokens, choices=choices)
    return meter.admit(by, wanted, now, now if steady is None else steady)


def test_a_key_without_limits_is_only_counted() -> None:
    meter = Meter()
    for _ in range(100):
        reservation = admit(meter, caller(), 10**9, NOW)
        assert reservation.tokens == 0
        meter.settle(reservation, 5, NOW)
    assert meter.totals(NOW) == {"one": 500}


def test_requests_of_a_minute_are_limited_and_come_back_with_the_next() -> None:
    meter = Meter()
    limited = caller(requests=2)
    admit(meter, limited, 0, NOW)
    admit(meter, limited, 0, NOW)
    with pytest.raises(RateLimited, match="2 requests a minute") as caught:
        admit(meter, limited, 0, NOW)
    assert not isinstance(caught.value, QuotaExceeded)
    wait = caught.value.retry_after_s
    assert wait is not None
    assert 1 <= wait <= 61
    admit(meter, limited, 0, NOW + wait)


def test_keys_have_accounts_of_their_own() -> None:
    meter = Meter()
    admit(meter, caller("one", requests=1), 0, NOW)
    admit(meter, caller("two", requests=1), 0, NOW)


def test_tokens_of_a_day_are_limited() -> None:
    meter = Meter()
    limited = caller(tokens=100)
    meter.settle(admit(meter, limited, 60, NOW), 60, NOW)
    with pytest.raises(QuotaExceeded, match="100 tokens a day; 40 are left") as caught:
        admit(meter, limited, 41, NOW)
    assert caught.value.retry_after_s == int(_DAY_S - 30) + 1
    admit(meter, limited, 40, NOW)


def test_what_is_reserved_cannot_be_used_by_another_exchange() -> None:
    meter = Meter()
    limited = caller(tokens=100)
    admit(meter, limited, 60, NOW)
    with pytest.raises(QuotaExceeded):
        admit(meter, limited, 60, NOW)


def test_who_does_not_say_how_many_tokens_reserves_at_most_what_is_left() -> None:
    meter = Meter()
    limited = caller(tokens=100)
    assert admit(meter, limited, 0, NOW).tokens == 100
    with pytest.raises(QuotaExceeded):
        admit(meter, limited, 0, NOW)


def test_who_does_not_say_leaves_room_for_others() -> None:
    meter = Meter()
    limited = caller(tokens=1_000_000)
    assert 0 < admit(meter, limited, 0, NOW).tokens < 1_000_000
    admit(meter, limited, 0, NOW)


def test_settling_frees_what_was_not_used() -> None:
    meter = Meter()
    limited = caller(tokens=100)
    meter.settle(admit(meter, limited, 100, NOW), 1, NOW)
    admit(meter, limited, 99, NOW)
    assert meter.totals(NOW) == {"one": 1}


def test_an_exchange_that_failed_frees_all_it_reserved() -> None:
    meter = Meter()
    limited = caller(tokens=100)
    for _ in range(10):
        meter.settle(admit(meter, limited, 100, NOW), 0, NOW)
    assert meter.totals(NOW) == {}


def test_who_used_more_than_was_reserved_is_counted_in_full() -> None:
    meter = Meter()
    limited = caller(tokens=100)
    meter.settle(admit(meter, limited, 10, NOW), 150, NOW)
    assert meter.totals(NOW) == {"one": 150}
    with pytest.raises(QuotaExceeded, match="0 are left"):
        admit(meter, limited, 1, NOW)


def test_a_refusal_counts_nothing() -> None:
    meter = Meter()
    limited = caller(requests=1, tokens=10)
    with pytest.raises(QuotaExceeded):
        admit(meter, limited, 11, NOW)
    admit(meter, limited, 10, NOW)


def test_the_next_day_begins_at_zero() -> None:
    meter = Meter()
    limited = caller(tokens=100)
    meter.settle(admit(meter, limited, 100, NOW), 100, NOW)
    tomorrow = NOW + _DAY_S
    assert meter.totals(tomorrow) == {}
    admit(meter, limited, 100, tomorrow)


def test_what_runs_over_midnight_stays_reserved_and_counts_where_it_ends() -> None:
    meter = Meter()
    limited = caller(tokens=100)
    over_night = admit(meter, limited, 70, NOW)
    tomorrow = NOW + _DAY_S
    with pytest.raises(QuotaExceeded):
        admit(meter, limited, 40, tomorrow)
    meter.settle(over_night, 60, tomorrow)
    assert meter.totals(tomorrow) == {"one": 60}


def test_a_clock_that_is_set_back_opens_no_new_minute() -> None:
    meter = Meter()
    limited = caller(requests=1)
    admit(meter, limited, 0, NOW)
    for back_s in (60, 120, 3_600, _DAY_S):
        with pytest.raises(RateLimited):
            admit(meter, limited, 0, NOW - back_s, steady=NOW)


def test_a_clock_that_was_ahead_locks_nobody_out() -> None:
    meter = Meter()
    limited = caller(requests=1, tokens=100)
    ahead = NOW + 365 * _DAY_S
    meter.settle(admit(meter, limited, 100, ahead, steady=1_000.0), 100, ahead)
    with pytest.raises(QuotaExceeded):
        admit(meter, limited, 1, NOW, steady=1_060.0)
    meter.settle(admit(meter, limited, 100, NOW, steady=1_000.0 + _DAY_S), 100, NOW)
    with pytest.raises(QuotaExceeded):
        admit(meter, limited, 1, NOW, steady=1_060.0 + _DAY_S)


def test_prompts_are_reserved_too() -> None:
    meter = Meter()
    limited = caller(tokens=100)
    with pytest.raises(QuotaExceeded):
        admit(meter, limited, 1, NOW, prompt=100)
    assert admit(meter, limited, 1, NOW, prompt=60).tokens == 61
    with pytest.raises(QuotaExceeded):
        admit(meter, limited, 1, NOW, prompt=60)


def test_who_does_not_say_reserves_for_every_choice() -> None:
    meter = Meter()
    one = admit(meter, caller(tokens=10**9), 0, NOW).tokens
    assert admit(meter, caller(tokens=10**9), 0, NOW, choices=128).tokens == 128 * one


def test_no_count_becomes_too_large_for_an_entry() -> None:
    meter = Meter()
    for _ in range(3):
        meter.settle(admit(meter, caller(), 0, NOW), 2**53 - 1, NOW)
    assert meter.totals(NOW) == {"one": 2**53 - 1}


def test_a_clock_that_is_set_back_opens_no_new_day() -> None:
    meter = Meter()
    limited = caller(tokens=100)
    meter.settle(admit(meter, limited, 100, NOW), 100, NOW)
    with pytest.raises(QuotaExceeded):
        admit(meter, limited, 1, NOW - 2 * _DAY_S)
    assert meter.totals(NOW - 2 * _DAY_S) == {"one": 100}
    with pytest.raises(QuotaExceeded):
        admit(meter, limited, 1, NOW)


def test_totals_of_the_ledger_are_taken_up_again() -> None:
    meter = Meter(int(NOW // _DAY_S), {"one": 90})
    with pytest.raises(QuotaExceeded, match="10 are left"):
        admit(meter, caller(tokens=100), 11, NOW)
    assert meter.totals(NOW) == {"one": 90}


def test_totals_of_yesterday_are_not() -> None:
    meter = Meter(int(NOW // _DAY_S) - 1, {"one": 90})
    assert meter.totals(NOW) == {}


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(0, 50), st.booleans()), max_size=40))
def test_side_by_side_no_one_who_keeps_to_his_word_passes_the_limit(steps: list[tuple[int, int, bool]]) -> None:
    """Exchanges that use at most what they asked for: used and reserved together stay within the day's tokens."""
    meter = Meter()
    limited = caller(tokens=100)
    running = []
    for asked, used, ends in steps:
        try:
            running.append((admit(meter, limited, asked, NOW), min(asked, used)))
        except QuotaExceeded:
            continue
        if ends:
            meter.settle(*running.pop(0), NOW)
        assert meter.totals(NOW).get("one", 0) + sum(one.tokens for one, _ in running) <= 100
    for reservation, used in running:
        meter.settle(reservation, used, NOW)
    assert meter.totals(NOW).get("one", 0) <= 100
