"""`rempart.identity.leases`: never more than the limit at all gateways, and all of it where it is asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rempart import limits
from rempart.errors import QuotaExceeded, RateLimited, SharedStateUnavailable
from rempart.identity.caller import Caller, Limits
from rempart.identity.leases import WIDTHS_S, Ask, Change, Grant, Held, LeasedMeter
from rempart.identity.quota import Meter, Reservation, Wanted
from rempart.testing.check_accounts import check_accounts

DAY_S = 86_400
NOON_S = 20_000.5 * DAY_S
WANTED = Wanted(prompt=10, completion=90)


class Lender:
    """What PostgreSQL does, in memory; all gateways have it in common."""

    def __init__(self) -> None:
        self.now = NOON_S
        self.taken: dict[tuple[str, str, int], int] = {}
        self.asked = 0
        self.away = False
        self.gateways: list[LeasedMeter] = []

    def gateway(self) -> LeasedMeter:
        made = LeasedMeter(self, Meter(), self.now, clock=lambda: self.now - NOON_S + 1_000)
        self.gateways.append(made)
        return made

    async def lend(self, ask: Ask) -> Grant:
        self._answer()
        span = int(self.now // WIDTHS_S[ask.kind])
        taken = self.taken.get((ask.key, ask.kind, span), 0)
        granted = min(ask.block, ask.limit - taken) if ask.limit - taken >= ask.need else 0
        self.taken[(ask.key, ask.kind, span)] = taken + granted
        return Grant(span, taken + granted, granted, self.now)

    async def settle(self, changes: Sequence[Change]) -> None:
        self._answer()
        for one in changes:
            name = (one.key, one.kind, one.span)
            self.taken[name] = max(self.taken.get(name, 0) + one.amount, 0)

    async def recall(self, key: str) -> None:
        self._answer()
        for gateway in self.gateways:
            gateway.recalled({key})
            await gateway.flush()

    def of(self, key: str, kind: str) -> int:
        return sum(n for (k, of, _), n in self.taken.items() if (k, of) == (key, kind))

    def _answer(self) -> None:
        self.asked += 1
        if self.away:
            raise SharedStateUnavailable("away")


def caller(key: str = "k", **given: int) -> Caller:
    return Caller(key=key, actor="a", role="user", limits=Limits(**given))


async def admitted(gateway: LeasedMeter, who: Caller, wanted: Wanted = WANTED) -> Reservation | RateLimited:
    try:
        found = gateway.admit(who, wanted, 0.0, 0.0)
        return found if isinstance(found, Reservation) else await found
    except RateLimited as error:
        return error


def count(tried: Sequence[object]) -> int:
    return sum(isinstance(one, Reservation) for one in tried)


async def test_it_is_an_account_as_the_meter_is() -> None:
    await check_accounts(Lender().gateway())


async def test_a_key_without_limits_asks_nobody() -> None:
    lender = Lender()
    lender.away = True
    gateway = lender.gateway()
    assert await admitted(gateway, caller()) == Reservation("k", 0)
    gateway.settle(Reservation("k", 0), 5, NOON_S)
    assert gateway.totals(NOON_S) == {"k": 5}


async def test_a_minutes_requests_are_shared_to_the_last_one() -> None:
    lender = Lender()
    one, other = lender.gateway(), lender.gateway()
    who = caller(requests_per_minute=40)
    assert count([await admitted(one, who) for _ in range(7)]) == 7
    assert count([await admitted(other, who) for _ in range(50)]) == 33
    refused = await admitted(one, who)
    assert isinstance(refused, RateLimited)
    assert 0 < (refused.retry_after_s or 0) <= 61
    lender.now += 60
    assert count([await admitted(one, who) for _ in range(50)]) == 40


async def test_the_lender_is_asked_for_a_block_and_not_for_each_exchange() -> None:
    lender = Lender()
    gateway = lender.gateway()
    who = caller(requests_per_minute=8_000)
    assert count([await admitted(gateway, who) for _ in range(8_000)]) == 8_000
    assert lender.asked == limits.lease_requests_part
    lender.asked = 0
    busy = caller("t", tokens_per_day=32 * 1_000)
    for _ in range(310):
        found = await admitted(gateway, busy)
        assert isinstance(found, Reservation)
        gateway.settle(found, 100, NOON_S)
    assert lender.asked <= limits.lease_tokens_part


async def test_who_is_over_the_limit_asks_the_lender_once_a_second() -> None:
    lender = Lender()
    gateway = lender.gateway()
    who = caller(requests_per_minute=1)
    assert count([await admitted(gateway, who) for _ in range(2)]) == 1
    lender.asked = 0
    assert count([await admitted(gateway, who) for _ in range(100)]) == 0
    assert lender.asked == 0


async def test_tokens_that_one_gateway_does_not_use_another_one_gets() -> None:
    lender = Lender()
    one, other = lender.gateway(), lender.gateway()
    who = caller(tokens_per_day=250)
    first = await admitted(one, who)
    assert isinstance(first, Reservation)
    one.settle(first, 10, NOON_S)
    tried = [await admitted(other, who) for _ in range(3)]
    assert [one.tokens for one in tried if isinstance(one, Reservation)] == [100, 100]
    assert isinstance(tried[2], QuotaExceeded)
    assert "40 are left" in tried[2].message


async def test_two_gateways_that_ask_each_other_at_once_do_not_both_keep_what_they_have() -> None:
    lender = Lender()
    both = lender.gateway(), lender.gateway()
    who = caller(tokens_per_day=130)
    for gateway in both:
        found = await admitted(gateway, who, Wanted(prompt=10, completion=40))
        assert isinstance(found, Reservation)
        gateway.settle(found, 10, NOON_S)  # each has 40 left, and the lender 30
    assert count(await asyncio.gather(*(admitted(one, who) for one in both))) == 0
    for gateway in both:
        await gateway.flush()
    lender.now += limits.lease_again_s
    assert count(await asyncio.gather(*(admitted(one, who) for one in both))) == 1


async def test_what_is_not_used_goes_back_after_a_while_and_at_the_end() -> None:
    lender = Lender()
    gateway = lender.gateway()
    found = await admitted(gateway, caller(tokens_per_day=3_200))
    assert isinstance(found, Reservation)
    gateway.settle(found, 30, NOON_S)
    await gateway.flush()
    assert lender.of("k", "tokens") == 100
    lender.now += limits.lease_idle_s + 1
    await gateway.flush()
    assert lender.of("k", "tokens") == 30
    assert isinstance(await admitted(gateway, caller(tokens_per_day=3_200)), Reservation)
    await gateway.close()
    assert lender.of("k", "tokens") == 130
    lender.now += limits.lease_idle_s + 1
    gateway.settle(Reservation("k", 100), 0, lender.now)
    lender.now += limits.lease_idle_s + 1
    await gateway.flush()
    assert not gateway._lines  # nothing is kept of keys that are not used


async def test_what_was_used_beyond_what_was_lent_is_charged() -> None:
    lender = Lender()
    gateway = lender.gateway()
    found = await admitted(gateway, caller(tokens_per_day=100))
    assert isinstance(found, Reservation)
    gateway.settle(found, 170, NOON_S)
    lender.away = True
    with pytest.raises(SharedStateUnavailable):
        await gateway.flush()
    lender.away = False
    await gateway.flush()
    await gateway.flush()
    assert lender.of("k", "tokens") == 170


async def test_the_day_in_which_an_exchange_ends_has_it() -> None:
    lender = Lender()
    gateway = lender.gateway()
    who = caller(tokens_per_day=300)
    found = await admitted(gateway, who)
    assert isinstance(found, Reservation)
    lender.now += DAY_S
    gateway.settle(found, 80, NOON_S + DAY_S)
    await gateway.flush()
    assert lender.taken[("k", "tokens", int(lender.now // DAY_S))] == 80
    assert count([await admitted(gateway, who) for _ in range(3)]) == 2


async def test_while_the_lender_is_away_what_was_lent_is_used_and_then_nothing() -> None:
    lender = Lender()
    gateway = lender.gateway()
    who = caller(requests_per_minute=80)
    assert count([await admitted(gateway, who)]) == 1
    lender.away = True
    assert count([await admitted(gateway, who) for _ in range(9)]) == 9
    with pytest.raises(SharedStateUnavailable):
        await admitted(gateway, who)
    lender.away = False
    assert count([await admitted(gateway, who)]) == 1


async def test_an_exchange_that_waits_no_more_leaves_what_it_was_lent_to_the_next() -> None:
    lender = Lender()
    gateway = lender.gateway()
    who = caller(requests_per_minute=1)
    waiting = asyncio.ensure_future(admitted(gateway, who))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert count([await admitted(gateway, who) for _ in range(3)]) == 1


async def test_a_gateway_that_died_brings_back_what_it_had_not_used() -> None:
    lender = Lender()
    gateway = lender.gateway()
    found = await admitted(gateway, caller(tokens_per_day=3_200))
    assert isinstance(found, Reservation)
    span = int(NOON_S // DAY_S)
    again = lender.gateway()
    await again.restore([Held("k", "tokens", span, 100, NOON_S)], {"k": 30, "other": 7})
    assert lender.of("k", "tokens") == 30
    assert lender.of("other", "tokens") == 7


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["ask", "ask", "end", "end", "flush", "die", "second", "minute", "day"]),
        st.integers(0, 2),
        st.integers(0, 200),
        st.integers(0, 100),
    ),
    max_size=60,
)


@given(STEPS, st.integers(1, 500), st.integers(1, 12))
def test_whatever_happens_no_more_is_admitted_than_the_limit(
    steps: list[tuple[str, int, int, int]], tokens: int, rpm: int
) -> None:
    """Of requests in a minute, and of tokens that run or were used in a day, as far as they were set aside."""

    async def walk() -> None:
        lender = Lender()
        gateways = [lender.gateway() for _ in range(3)]
        running: list[list[Reservation]] = [[], [], []]
        used, minute = 0, 0
        who = caller(requests_per_minute=rpm, tokens_per_day=tokens)
        for what, at, prompt, asked in steps:
            gateway = gateways[at]
            if what == "ask":
                found = await admitted(gateway, who, Wanted(prompt=prompt, completion=asked))
                if isinstance(found, Reservation):
                    minute += 1
                    running[at].append(found)
            elif what == "end" and running[at]:
                ended = running[at].pop()
                spent = min(asked, ended.tokens)
                gateway.settle(ended, spent, lender.now)
                used += spent
            elif what == "flush":
                await gateway.flush()
            elif what == "die":
                gateways[at] = lender.gateway()
                lender.gateways.remove(gateway)
                running[at] = []
            elif what == "second":
                lender.now += 1.5
            else:
                lender.now += DAY_S if what == "day" else 60
                minute = 0
                if what == "day":
                    used = 0
                    running = [[], [], []]
                    gateways = [lender.gateway() for _ in range(3)]
            assert minute <= rpm
            assert used + sum(one.tokens for some in running for one in some) <= tokens

    _no_pauses(walk)


def _no_pauses(walk: object) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "lease_recall_s", (0.0,))
        asyncio.run(walk())  # type: ignore[operator]
