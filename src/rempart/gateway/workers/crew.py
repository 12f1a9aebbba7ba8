"""`Crew`: the other workers of a site, as its primary process has them: told, asked, paused, and counted together.

Whoever does not answer what it must is killed: it is then as gone as if it had died, and nothing that was to reach it
can be untrue of it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from rempart import limits
from rempart.errors import RempartError
from rempart.gateway.figures import Family, merged
from rempart.gateway.workers import messages as m
from rempart.gateway.workers.slots import Slots, new_slots
from rempart.identity.keys import KeyRow
from rempart.ipc.channel import ChannelClosed
from rempart.ipc.talk import Talk
from rempart.ledger.keys.vault import Live
from rempart.ledger.writing.draft import Trace

if TYPE_CHECKING:
    from rempart.gateway.app import Gateway

_log = logging.getLogger("rempart.gateway")
T = TypeVar("T")


class Member:
    """One worker that lives. `end` returns when its process is gone and all that it had sent is taken."""

    def __init__(self, number: int, talk: Talk, end: Callable[[], Awaitable[None]]) -> None:
        self.number = number
        self.talk = talk
        self.end = end
        self.figures: Sequence[Family] = ()
        """As it told them last."""
        self.answers_s = limits.worker_start_s
        """How long it may take to answer: while it starts, longer."""

    def started(self) -> None:
        """It serves."""
        self.answers_s = limits.worker_answer_s


class Crew:
    """Of one site. The contracts are those of the gateway's `Others` and the vault's."""

    def __init__(self, workers: int) -> None:
        """`workers`: with this one."""
        self.descriptor = new_slots(workers)
        """Of the shared numbers."""
        self.slots = Slots(self.descriptor, 0)
        self._members: dict[int, Member] = {}
        self._gone: list[Family] = []
        """Figures of workers that died, summed: sums never fall."""
        self._gateway: Gateway | None = None

    @property
    def gateway(self) -> Gateway:
        """The primary's own."""
        assert self._gateway is not None, "the gateway is there before anything is asked"
        return self._gateway

    @gateway.setter
    def gateway(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def join(self, member: Member) -> None:
        """From now on it is told and asked. What it must know of before is in its `Start`, sent before anything else:
        nothing may be awaited between."""
        self._members[member.number] = member

    def leave(self, member: Member) -> None:
        """It is gone."""
        if self._members.pop(member.number, None) is member:
            counted = [one for one in member.figures if one.kind != "gauge"]
            self._gone = merged([self._gone, counted])
            self.slots.clear(member.number)

    def close(self) -> None:
        self.slots.close()
        os.close(self.descriptor)

    def tell(self, word: object) -> None:
        for member in self._members.values():
            member.talk.tell(word)

    async def check(self) -> None:
        """Whoever hangs is gone when this returns."""
        await self._ask_all(m.Sync(), type(None), must=True)

    # For the administration.

    async def put_key(self, row: KeyRow, mac: bytes) -> None:
        """Every worker knows it when this returns."""
        await self._ask_all(m.PutKey(row, mac), type(None), must=True)

    # For the vault.

    async def pause(self) -> list[Live]:
        answers = await self._ask_all(m.Pause(), list[m.Running], must=True)
        return [(one.fields, one.key) for _, answer in answers for one in answer]

    async def resume(self) -> None:
        await self._ask_all(m.Resume(), type(None), must=True)

    # For the gateway.

    def runs(self, exchanges: int) -> None:
        self.slots.put(exchanges)

    def running(self) -> int:
        return self.slots.total()

    async def count_of(self, key: str) -> tuple[int, int]:
        await self.settled()
        return self.gateway.counts.of_key(key, time.time())

    async def metrics(self) -> bytes:
        for member, figures in await self._ask_all(m.Sample(), list[Family]):
            member.figures = figures
        return self.gateway.metrics.text([self._gone, *(member.figures for member in self._members.values())])

    async def recent(self, exchange: str) -> Trace | None:
        found = self.gateway.parts.journal.recent(exchange)
        if found is not None:
            return found
        answers = await self._ask_all(m.FindTrace(exchange), list[Trace])
        return next((trace for _, traces in answers for trace in traces), None)

    async def settled(self) -> None:
        await self._ask_all(m.Sync(), type(None))

    async def _ask_all(self, question: object, kind: type[T], *, must: bool = False) -> list[tuple[Member, T]]:
        """The answers of those that answered. `must`: the others are gone when this returns."""
        asked = list(self._members.values())
        answers = await asyncio.gather(*(self._ask(member, question, kind, must) for member in asked))
        return [(member, answer[0]) for member, answer in zip(asked, answers, strict=True) if answer]

    async def _ask(self, member: Member, question: object, kind: type[T], must: bool) -> tuple[T] | tuple[()]:
        try:
            async with asyncio.timeout(member.answers_s):
                return (await member.talk.ask(question, kind),)
        except (ChannelClosed, TimeoutError, RempartError) as error:
            _log.warning("worker does not answer", extra={"worker": f"w{member.number}", "why": str(error)})
        if must:
            await member.end()
        return ()
