"""`Worker.answer`: what a worker answers to the primary process, before it serves and while it does."""

from __future__ import annotations

import asyncio
from typing import Any

from rempart.gateway.app import Gateway
from rempart.gateway.workers import messages as m
from rempart.identity.keyring import KeyRing
from rempart.ledger.keys.cache import KeyCache
from rempart.ledger.writing.draft import Witnessed
from rempart.ledger.writing.journal import WorkerJournal


class Worker:
    """What it must know at once it keeps from its first moment; the gateway is put in when there is one."""

    def __init__(self, keys: KeyCache) -> None:
        self.keys = keys
        self.start: asyncio.Future[m.Start] = asyncio.get_running_loop().create_future()
        self.listens = asyncio.Event()
        self.drain = asyncio.Event()
        self.cut = asyncio.Event()
        self.told: m.Told | None = None
        self.ring: KeyRing | None = None
        self.journal: WorkerJournal | None = None
        self.gateway: Gateway | None = None

    def witnessed(self) -> Witnessed:
        """As it was told last."""
        return Witnessed() if self.told is None else self.told.witnessed

    async def answer(self, question: Any) -> object:
        match question:
            case m.Start():
                self.ring = KeyRing(question.pepper, question.keys)
                self._hear_told(question.told)
                self.start.set_result(question)
                await self.listens.wait()
            case m.PutKey():
                assert self.ring is not None, "a worker is started before it is told anything else"
                self.ring.put(question.row, question.mac)
                if self.gateway is not None:
                    self.gateway.cut_revoked()
            case m.Pause():
                return self._pause()
            case m.Resume():
                self.keys.resume()
            case m.Sample():
                return [] if self.gateway is None else self.gateway.metrics.own()
            case m.FindTrace():
                found = None if self.journal is None else self.journal.recent(question.exchange)
                return [] if found is None else [found]
            case m.Sync():
                pass
            case _:
                raise TypeError(f"{type(question).__name__} is no question to a worker")
        return None

    def hear(self, word: Any) -> None:
        match word:
            case m.Told():
                self._hear_told(word)
            case m.Drain():
                self.drain.set()
            case m.Cut():
                self.cut.set()
            case _:
                raise TypeError(f"{type(word).__name__} is no word to a worker")

    def _hear_told(self, told: m.Told) -> None:
        self.told = told
        if self.ring is not None:
            self.ring.believed_until = told.believed_until

    def _pause(self) -> list[m.Running]:
        self.keys.pause()
        return [] if self.journal is None else [m.Running(fields, key) for fields, key in self.journal.live()]
