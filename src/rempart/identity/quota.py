"""`Meter.admit`: requests of the minute and tokens of the day per key, in memory, restored from the ledger (pure).

What may be used is reserved before an exchange is admitted and corrected by what was used, so that exchanges that run
side by side cannot pass a limit together. Days are UTC days, minutes are those of a clock that is never set. A clock
that is set back opens no new day; one that was ahead costs at most a day.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from rempart.errors import QuotaExceeded, RateLimited
from rempart.identity.caller import Caller

_MINUTE_S: Final = 60
_DAY_S: Final = 86_400
# Reserved when a request does not say how many tokens it may take.
UNSAID_TOKENS: Final = 1_024
_TOKENS_MAX: Final = 2**53 - 1  # what an entry can hold


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What a request may take, in tokens."""

    prompt: int
    """Estimated."""
    completion: int
    """Of all choices together; 0 when it does not say."""
    choices: int = 1


class Reservation(msgspec.Struct, frozen=True):
    """Tokens set aside for one exchange."""

    key: str
    tokens: int


class _Account:
    __slots__ = ("minute", "requests", "reserved", "tokens")

    def __init__(self) -> None:
        self.minute = 0
        self.requests = 0
        self.tokens = 0
        self.reserved = 0


class Meter:
    """The accounts of all keys. `now` is always seconds since 1970."""

    def __init__(self, day: int = 0, tokens: Mapping[str, int] | None = None) -> None:
        self._day = day
        self._opened = 0.0
        """Steady seconds at which the day was first used; 0 before that."""
        self._accounts: dict[str, _Account] = {}
        for key, used in (tokens or {}).items():
            self._account(key).tokens = used

    def admit(self, caller: Caller, wanted: Wanted, now: float, steady: float) -> Reservation:
        """`steady`: seconds of a clock that is never set. Raises `RateLimited` or `QuotaExceeded`, and then counts
        nothing."""
        if now // _DAY_S < self._day and steady - self._opened >= _DAY_S:
            self._open(int(now // _DAY_S))  # the clock had been ahead: its day is over by the steady one
        self._turn(now)
        if not self._opened:
            self._opened = steady
        account = self._account(caller.key)
        minute = int(steady // _MINUTE_S)
        requests = account.requests if minute == account.minute else 0
        limit = caller.limits.requests_per_minute
        if limit is not None and requests >= limit:
            wait = max(int((minute + 1) * _MINUTE_S - steady) + 1, 1)
            raise RateLimited(
                f"This key may send {limit} requests a minute.", hint=f"Try again in {wait} s.", retry_after_s=wait
            )
        reserved = self._reserve(caller, account, wanted, now)
        account.minute, account.requests = minute, requests + 1
        account.reserved += reserved
        return Reservation(caller.key, reserved)

    def _reserve(self, caller: Caller, account: _Account, wanted: Wanted, now: float) -> int:
        limit = caller.limits.tokens_per_day
        if limit is None:
            return 0
        left = limit - account.tokens - account.reserved
        if left <= 0 or wanted.prompt + wanted.completion > left:
            fewer = "Send a shorter prompt, ask for fewer with max_tokens, w" if left > 0 else "W"
            raise QuotaExceeded(
                f"This key may use {limit} tokens a day; {max(left, 0)} are left.",
                hint=f"{fewer}ait for the next UTC day, or ask for a higher limit.",
                retry_after_s=int((self._day + 1) * _DAY_S - now) + 1,
            )
        return min(wanted.prompt + (wanted.completion or UNSAID_TOKENS * wanted.choices), left)

    def settle(self, reservation: Reservation, tokens: int, now: float) -> None:
        """Replace what was reserved by what was used."""
        self._turn(now)
        account = self._account(reservation.key)
        account.reserved -= reservation.tokens
        account.tokens = min(account.tokens + tokens, _TOKENS_MAX)

    def totals(self, now: float) -> dict[str, int]:
        """Tokens of today per key, for the ledger."""
        self._turn(now)
        return {key: account.tokens for key, account in self._accounts.items() if account.tokens}

    def _account(self, key: str) -> _Account:
        found = self._accounts.get(key)
        if found is None:
            found = self._accounts[key] = _Account()
        return found

    def _turn(self, now: float) -> None:
        day = int(now // _DAY_S)
        if day > self._day:
            self._open(day)

    def _open(self, day: int) -> None:
        self._day, self._opened = day, 0.0
        for account in self._accounts.values():
            account.tokens = 0
