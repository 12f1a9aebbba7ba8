"""`LeasedMeter.admit`: limits of keys that hold at several gateways together, without a question for each exchange.

What a key may still use of its minute and its day is lent out by a lender that all gateways have in common, in blocks:
a part of the limit each. An exchange is admitted from what this gateway was lent; the lender is asked when that is used
up. What was lent and is not used goes back after a while, or at once when another gateway needs it. Never is more lent
than the limit. A gateway that dies loses what it was lent and had not used, for the rest of the minute or until it is
back. When the lender is away, what is lent is used up, and then nothing more is admitted (fail closed).

Keys without limits, and the tokens of the day for the ledger, are the local meter's. `now` is seconds since 1970.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import Final, Literal, Protocol

import msgspec

from rempart import limits
from rempart.errors import QuotaExceeded, RateLimited, SharedStateUnavailable
from rempart.identity.caller import Caller, Limits
from rempart.identity.quota import UNSAID_TOKENS, Meter, Reservation, Wanted

Kind = Literal["requests", "tokens"]
WIDTHS_S: Final[Mapping[Kind, int]] = {"requests": 60, "tokens": 86_400}
"""Seconds of a span of each kind: a minute, a UTC day."""


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be lent."""

    key: str
    kind: Kind
    limit: int
    need: int
    """Less than that is of no use."""
    block: int
    """More than that is not wanted."""


class Grant(msgspec.Struct, frozen=True):
    """What was lent."""

    span: int
    """Number of the minute or day since 1970."""
    taken: int
    """Of the limit, by all gateways, this loan included."""
    granted: int
    now: float
    """The lender's clock."""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """Negative: given back; positive: used beyond what was lent."""

    key: str
    kind: Kind
    span: int
    amount: int


class Held(msgspec.Struct, frozen=True):
    """What a gateway was lent in a span that goes on."""

    key: str
    kind: Kind
    span: int
    amount: int
    now: float


class Lender(Protocol):
    """All raise `SharedStateUnavailable`."""

    async def lend(self, ask: Ask) -> Grant: ...

    async def settle(self, changes: Sequence[Change]) -> None:
        """All of them, or none; or, when the lender did not answer, nobody knows."""
        ...

    async def recall(self, key: str) -> None:
        """Whoever else has something of it that is not used gives it back soon."""
        ...


class _Line:
    """What is lent of one key and kind."""

    __slots__ = (
        *("free", "key", "kind", "left", "left_until", "lending", "recalled", "refused_until", "reserved"),
        *("span", "used_at"),
    )

    def __init__(self, key: str, kind: Kind) -> None:
        self.key = key
        self.kind = kind
        self.span = 0
        self.free = 0
        """Lent, and neither used nor reserved; below 0: used beyond what was lent, and not told to the lender yet."""
        self.reserved = 0
        self.left = 0
        """What the lender still had, until then in steady seconds."""
        self.left_until = 0.0
        self.refused_until = 0.0
        """The lender had too little, also after the other gateways had been asked: it is not asked again until then."""
        self.used_at = 0.0
        self.recalled = False
        self.lending: asyncio.Task[Grant] | None = None

    def turn(self, span: int) -> None:
        """What was lent for a span ends with it; what is reserved will be used in the next one."""
        if span > self.span:
            self.span, self.free = span, -self.reserved
            self.left_until = self.refused_until = 0.0


class _Need(msgspec.Struct, frozen=True):
    """What an exchange takes of one line."""

    limit: int
    least: int
    most: int


class LeasedMeter:
    """The contract is that of the gateway's `Accounts`. Call `flush` again and again, and `close` at the end."""

    def __init__(
        self, lender: Lender, local: Meter, lenders_now: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`lenders_now`: the lender's clock, in seconds since 1970, read just now. `clock` is never set."""
        self._lender = lender
        self._local = local
        self._clock = clock
        self._ahead_s = lenders_now - clock()
        self._lines: dict[tuple[str, Kind], _Line] = {}

    def set_clock(self, lenders_now: float, steady: float) -> None:
        """Both were read at one moment."""
        self._ahead_s = lenders_now - steady

    def admit(self, caller: Caller, wanted: Wanted, now: float, steady: float) -> Reservation | Awaitable[Reservation]:
        """Raises `RateLimited`, `QuotaExceeded`, `SharedStateUnavailable`, and then counts nothing."""
        needs = _needs(caller.limits, wanted)
        if not needs:
            return self._local.admit(caller, wanted, now, steady)
        taken = self._take(caller.key, needs)
        return taken if isinstance(taken, Reservation) else self._admit(caller.key, needs)

    def settle(self, reservation: Reservation, tokens: int, now: float) -> None:
        """Replace what was reserved by what was used; the day in which it ends has it."""
        self._local.settle(Reservation(reservation.key, 0), tokens, now)
        if reservation.tokens:
            line = self._line(reservation.key, "tokens")
            line.reserved -= reservation.tokens
            line.free += reservation.tokens - tokens
            line.used_at = self._clock()

    def totals(self, now: float) -> dict[str, int]:
        """Tokens of today per key at this gateway, for the ledger."""
        return self._local.totals(now)

    def recalled(self, keys: Collection[str]) -> None:
        """Another gateway needs what is not used of them; the next `flush` gives it back."""
        for line in self._lines.values():
            if line.key in keys:
                line.recalled = True

    async def flush(self, *, everything: bool = False) -> None:
        """Tell the lender what was used beyond what was lent, and give back what is not used. Raises
        `SharedStateUnavailable`: what was to be charged is charged later, what was given back may be lost."""
        idle_since = self._clock() - limits.lease_idle_s
        changes: list[Change] = []
        charged: list[tuple[_Line, int]] = []
        for key, kind in list(self._lines):
            line = self._line(key, kind)
            back = line.free > 0 and (everything or line.recalled or line.used_at < idle_since)
            if line.lending is None:  # else what it brings is waited for, and what is not used then goes back
                line.recalled = False
            if line.free < 0:
                charged.append((line, line.free))
            if line.free < 0 or (back and line.lending is None):
                changes.append(Change(key=key, kind=kind, span=line.span, amount=-line.free))
                line.free = 0
            if line.used_at < idle_since and not (line.free or line.reserved or line.lending):
                del self._lines[(key, kind)]
        if changes:
            try:
                await self._lender.settle(changes)
            except SharedStateUnavailable:
                for line, debt in charged:
                    self._lines.setdefault((line.key, line.kind), line).free += debt
                raise

    async def close(self) -> None:
        """Nothing is kept. Raises `SharedStateUnavailable`."""
        await self.flush(everything=True)

    async def restore(self, held: Iterable[Held], used: Mapping[str, int]) -> None:
        """At a start: of what this gateway was lent today, that stays taken which its ledger says was used.

        `used`: tokens by key, of the lender's day. Raises `SharedStateUnavailable`.
        """
        had = {one.key: one.amount for one in held if one.kind == "tokens"}
        span = self._span("tokens")
        differ = {key: used.get(key, 0) - had.get(key, 0) for key in had.keys() | used.keys()}
        changes = [Change(key=k, kind="tokens", span=span, amount=n) for k, n in sorted(differ.items()) if n]
        if changes:
            await self._lender.settle(changes)

    async def _admit(self, key: str, needs: Mapping[Kind, _Need]) -> Reservation:
        while True:
            lacking = self._take(key, needs)
            if isinstance(lacking, Reservation):
                return lacking
            need = needs[lacking.kind]
            if lacking.lending is None:  # else it is asked for another exchange: it may bring enough for this one too
                if self._clock() < lacking.refused_until and lacking.free + lacking.left < need.least:
                    raise self._refusal(lacking, need)
                lacking.lending = asyncio.create_task(self._borrow(lacking, need))
                lacking.lending.add_done_callback(_seen)
            await asyncio.shield(lacking.lending)  # what it brings is kept, whoever still waits for it

    def _take(self, key: str, needs: Mapping[Kind, _Need]) -> Reservation | _Line:
        """All that an exchange needs, or the first line that lacks some of it."""
        now = self._clock()
        lines = {kind: self._line(key, kind) for kind in needs}
        for kind, need in needs.items():
            line = lines[kind]
            # Less will do when there is no more to be had.
            least = need.least if now < line.left_until and not line.left else need.most
            if line.free < least:
                return line
        reserved = 0
        for kind, need in needs.items():
            line, amount = lines[kind], min(need.most, lines[kind].free)
            line.free, line.used_at = line.free - amount, now
            if kind == "tokens":
                reserved, line.reserved = amount, line.reserved + amount
        return Reservation(key, reserved)

    async def _borrow(self, line: _Line, need: _Need) -> Grant:
        """Ask the lender; when it has too little, the other gateways for what they do not use."""
        part = limits.lease_requests_part if line.kind == "requests" else limits.lease_tokens_part
        ask = Ask(
            key=line.key,
            kind=line.kind,
            limit=need.limit,
            need=max(need.least - line.free, 1),
            block=max(need.most - line.free, need.limit // part, 1),
        )
        try:
            grant = await self._lend(line, need, ask)
            if not grant.granted and line.free < need.least <= need.limit:
                await self._lender.recall(line.key)
                for pause_s in limits.lease_recall_s:
                    await asyncio.sleep(pause_s)
                    grant = await self._lend(line, need, ask)
                    if grant.granted:
                        break
            if not grant.granted:
                line.refused_until = self._clock() + limits.lease_again_s
            return grant
        finally:
            line.lending = None

    async def _lend(self, line: _Line, need: _Need, ask: Ask) -> Grant:
        grant = await self._lender.lend(ask)
        self.set_clock(grant.now, self._clock())
        line.turn(grant.span)
        line.free += grant.granted if grant.span == line.span else 0
        line.left = max(need.limit - grant.taken, 0)
        line.used_at = self._clock()
        line.left_until = line.used_at + limits.lease_again_s
        return grant

    def _refusal(self, line: _Line, need: _Need) -> RateLimited:
        end_s = (line.span + 1) * WIDTHS_S[line.kind] - self._now()
        wait = max(math.ceil(end_s), 1)
        if line.kind == "requests":
            return RateLimited(
                f"This key may send {need.limit} requests a minute.", hint=f"Try again in {wait} s.", retry_after_s=wait
            )
        left = max(line.free + line.left, 0)
        fewer = "Send a shorter prompt, ask for fewer with max_tokens, w" if left > 0 else "W"
        return QuotaExceeded(
            f"This key may use {need.limit} tokens a day; {left} are left.",
            hint=f"{fewer}ait for the next UTC day, or ask for a higher limit.",
            retry_after_s=wait,
        )

    def _line(self, key: str, kind: Kind) -> _Line:
        """As it is now: what was lent for a span that is over is gone."""
        line = self._lines.get((key, kind))
        if line is None:
            line = self._lines[(key, kind)] = _Line(key, kind)
        line.turn(self._span(kind))
        return line

    def _now(self) -> float:
        return self._clock() + self._ahead_s

    def _span(self, kind: Kind) -> int:
        return int(self._now() // WIDTHS_S[kind])


def _seen(task: asyncio.Task[Grant]) -> None:
    """Whoever waited has left: its error is nobody's."""
    if not task.cancelled():
        task.exception()


def _needs(of: Limits, wanted: Wanted) -> dict[Kind, _Need]:
    needs: dict[Kind, _Need] = {}
    if of.requests_per_minute is not None:
        needs["requests"] = _Need(of.requests_per_minute, 1, 1)
    if of.tokens_per_day is not None:
        least = max(wanted.prompt + wanted.completion, 1)
        most = max(wanted.prompt + (wanted.completion or UNSAID_TOKENS * wanted.choices), 1)
        needs["tokens"] = _Need(of.tokens_per_day, least, most)
    return needs
