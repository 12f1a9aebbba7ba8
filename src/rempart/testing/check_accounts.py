"""`check_accounts`: the conformance suite of the gateway's port `Accounts`, in both its forms."""

from __future__ import annotations

import asyncio
import time

from rempart.errors import QuotaExceeded, RateLimited
from rempart.gateway.ports import Accounts
from rempart.identity.caller import Caller, Limits
from rempart.identity.quota import Reservation, Wanted

_WANTED = Wanted(prompt=10, completion=90)


async def check_accounts(accounts: Accounts) -> None:
    """Raises `AssertionError`. What is used here was not used before."""
    await _check_free(accounts)
    await _check_minute(accounts)
    await _check_day(accounts)
    await _check_unsaid(accounts)


async def _check_free(accounts: Accounts) -> None:
    """A key without limits waits for nobody."""
    for _ in range(3):
        reserved = accounts.admit(_caller("free"), _WANTED, time.time(), time.monotonic())
        assert reserved == Reservation("free", 0)
        assert accounts.settle(Reservation("free", 0), 50, time.time()) is None


async def _check_minute(accounts: Accounts) -> None:
    caller = _caller("minute", requests_per_minute=5)
    tried = await asyncio.gather(*(_admitted(accounts, caller) for _ in range(12)))
    admitted = [one for one in tried if isinstance(one, Reservation)]
    refused = [one for one in tried if isinstance(one, RateLimited)]
    assert len(admitted) in (5, 10)  # a new minute may have begun
    assert len(refused) == 12 - len(admitted)
    assert all(0 < (error.retry_after_s or 0) <= 60 for error in refused)
    for one in admitted:
        await _settle(accounts, one, 1)


async def _check_day(accounts: Accounts) -> None:
    caller = _caller("day", tokens_per_day=250)
    tried = await asyncio.gather(*(_admitted(accounts, caller) for _ in range(6)))
    admitted = [one for one in tried if isinstance(one, Reservation)]
    assert [one.tokens for one in admitted] == [100, 100]
    refused = [one for one in tried if isinstance(one, QuotaExceeded)]
    assert len(refused) == 4
    assert all("50 are left" in error.message and error.hint for error in refused)
    await _settle(accounts, admitted[0], 30)
    await _settle(accounts, admitted[1], 0)
    again = [await _admitted(accounts, caller) for _ in range(3)]
    assert [isinstance(one, Reservation) for one in again] == [True, True, False]
    for one in again[:2]:
        assert isinstance(one, Reservation)
        await _settle(accounts, one, 110)  # more than was set aside: it was used, so it counts
    assert isinstance(await _admitted(accounts, caller), QuotaExceeded)


async def _check_unsaid(accounts: Accounts) -> None:
    """Who does not say how much gets what is left, at most."""
    caller = _caller("unsaid", tokens_per_day=500)
    first = accounts.admit(caller, Wanted(prompt=10, completion=0), time.time(), time.monotonic())
    reserved = first if isinstance(first, Reservation) else await first
    assert reserved == Reservation("unsaid", 500)
    await _settle(accounts, reserved, 500)
    assert isinstance(await _admitted(accounts, caller), QuotaExceeded)


def _caller(key: str, **limits: int) -> Caller:
    return Caller(key=key, actor="a", role="user", limits=Limits(**limits))


async def _admitted(accounts: Accounts, caller: Caller) -> Reservation | RateLimited:
    try:
        admitted = accounts.admit(caller, _WANTED, time.time(), time.monotonic())
        return admitted if isinstance(admitted, Reservation) else await admitted
    except RateLimited as error:
        return error


async def _settle(accounts: Accounts, reservation: Reservation, tokens: int) -> None:
    settled = accounts.settle(reservation, tokens, time.time())
    if settled is not None:
        await settled
