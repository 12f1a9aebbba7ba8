"""`Desk.answer`: what the primary process answers to one worker, and what it does when that worker is gone."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import msgspec

from rempart.errors import NotFound
from rempart.gateway.counts import Counts
from rempart.gateway.ports import Others, Witness
from rempart.gateway.workers import messages as m
from rempart.identity.caller import USER, Caller
from rempart.identity.quota import Meter, Reservation
from rempart.ledger.keys.source import KeySource


class Books(msgspec.Struct, frozen=True, kw_only=True):
    """What the primary keeps for all workers."""

    keys: KeySource
    meter: Meter
    counts: Counts
    witness: Witness | None


class Desk:
    """Of one worker."""

    def __init__(self, books: Books, others: Others) -> None:
        self._books = books
        self._others = others
        self._reserved: Counter[str] = Counter()
        """Tokens set aside, by key."""
        self._dispatched: Counter[str] = Counter()
        """Requests that have not ended, by engine."""
        self._retried: Counter[str] = Counter()
        """Those that came to it after another one failed."""

    async def answer(self, question: Any) -> object:
        """Raises any `RempartError`."""
        keys = self._books.keys
        match question:
            case m.NewSeed():
                return await keys.new_seed()
            case m.BucketKey():
                return await keys.bucket(question.retention, question.day)
            case m.SubjectKey():
                return await keys.subject(question.pseudonym)
            case m.AskPerson():
                return await keys.person(question.identity)
            case m.Reserve():
                return self._reserve(question)
            case m.Spend():
                self._spend(question)
                return None
            case m.CountOf():
                return await self._others.count_of(question.key)
            case m.AllMetrics():
                return await self._others.metrics()
            case m.AnyTrace():
                found = await self._others.recent(question.exchange)
                return [] if found is None else [found]
            case m.AddCheckpoint():
                return await self._cosign(question.body)
        raise TypeError(f"{type(question).__name__} is no question to the primary")

    def hear(self, word: Any) -> None:
        counts = self._books.counts
        match word:
            case m.Spend():
                self._spend(word)
            case m.Dispatched():
                self._dispatched[word.engine] += 1
                counts.dispatched(word.engine)
            case m.Retried():
                self._retried[word.engine] += 1
                counts.retried(word.engine)
            case m.Ended():
                (self._retried if word.retried else self._dispatched)[word.engine] -= 1
                counts.ended(
                    word.engine,
                    answered=word.answered,
                    tokens_prompt=word.tokens_prompt,
                    tokens_completion=word.tokens_completion,
                    retried=word.retried,
                )
            case m.Recorded():
                counts.recorded(word.key, time.time())
            case _:
                raise TypeError(f"{type(word).__name__} is no word to the primary")

    def give_back(self) -> None:
        """The worker is gone: what it had reserved is free."""
        for key, tokens in self._reserved.items():
            self._books.meter.settle(Reservation(key, tokens), 0, time.time())
        self._reserved.clear()

    def forget(self) -> None:
        """All that it had open is closed in the ledger. Whether what it had dispatched was answered it can no longer
        say; until now it counted as running, since the ledger did not have its end."""
        for engine in self._dispatched.keys() | self._retried.keys():
            self._books.counts.lost(engine, self._dispatched[engine], self._retried[engine])
        self._dispatched.clear()
        self._retried.clear()

    def _reserve(self, asked: m.Reserve) -> int:
        caller = Caller(key=asked.key, actor="", role=USER, limits=asked.limits)
        tokens = self._books.meter.admit(caller, asked.wanted, time.time(), time.monotonic()).tokens
        self._reserved[asked.key] += tokens
        return tokens

    def _spend(self, spent: m.Spend) -> None:
        self._reserved[spent.key] -= spent.reserved
        self._books.meter.settle(Reservation(spent.key, spent.reserved), spent.tokens, time.time())

    async def _cosign(self, body: bytes) -> m.Cosigned:
        if self._books.witness is None:
            raise NotFound("This gateway is no witness.", hint="See witness.name.")
        answer = await self._books.witness.add_checkpoint(body)
        return m.Cosigned(answer.status, answer.body, answer.content_type)
