"""`rempart.gateway.workers.crew`: all are told, whoever does not answer is ended, and nothing begins in a pause."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from rempart.gateway.figures import Family, Sample
from rempart.gateway.workers import messages as m
from rempart.gateway.workers.crew import Crew, Member
from rempart.gateway.workers.remote import RemoteKeys
from rempart.gateway.workers.worker import Worker
from rempart.identity.keys import KeyRow
from rempart.ipc.talk import Talk
from rempart.ledger.keys.cache import KeyCache
from rempart.ledger.keys.keystore import Keystore
from rempart.ledger.keys.vault import Vault
from rempart.ledger.writing.draft import Witnessed
from rempart.ledger.writing.journal import Voice
from rempart.testing.talking import NOBODY, Side, talking

DAY = "2026-11-23"
ROW = KeyRow(id="0" * 12, name="one", role="user", actor="a")


class Ship:
    """A crew of workers that are here and yet behind their sockets."""

    def __init__(self, vault: Vault) -> None:
        self.vault = vault
        self.crew = Crew(4)
        vault.others = self.crew
        self.workers: list[Worker] = []
        self.ended: list[int] = []

    @contextlib.asynccontextmanager
    async def member(self) -> AsyncIterator[Worker]:
        number = len(self.workers) + 1
        async with talking(
            Side(m.TO_PRIMARY, self._keys, _nothing),
            Side(m.TO_WORKER, lambda question: worker.answer(question), lambda word: worker.hear(word)),
        ) as (primary, far):
            worker = Worker(KeyCache(RemoteKeys(far)))
            self.workers.append(worker)
            self.crew.join(self._member(number, primary))
            worker.listens.set()
            await primary.ask(_start(number), type(None))
            yield worker

    @contextlib.asynccontextmanager
    async def mute(self) -> AsyncIterator[Member]:
        """It takes everything and answers nothing."""
        forever = asyncio.Event()

        async def wait(_: Any) -> object:
            return await forever.wait()

        async with talking(NOBODY, Side(m.TO_WORKER, wait, _nothing)) as (primary, _):
            member = self._member(3, primary)
            member.answers_s = 0.05
            self.crew.join(member)
            yield member

    def _member(self, number: int, talk: Talk) -> Member:
        async def end() -> None:
            self.ended.append(number)
            self.crew.leave(member)

        member = Member(number, talk, end)
        return member

    async def _keys(self, question: Any) -> object:
        source = self.vault.source
        match question:
            case m.NewSeed():
                return await source.new_seed()
            case m.BucketKey():
                return await source.bucket(question.retention, question.day)
        raise AssertionError(question)


def _nothing(word: object) -> None:
    """Words are not what this is about."""


def _start(number: int) -> m.Start:
    return m.Start(
        number=number,
        settings=b"{}",
        models={},
        voice=Voice(log="l", boot="b", worker=f"w{number}"),
        pepper=bytes(32),
        keys=[],
        told=m.Told(engines={}, witnessed=Witnessed()),
    )


@pytest.fixture
async def ship(tmp_path: Path) -> AsyncIterator[Ship]:
    vault = Vault(Keystore.create(tmp_path / "keys"))
    made = Ship(vault)
    yield made
    made.crew.close()
    vault.close()


async def test_a_key_is_known_to_all_when_it_was_put(ship: Ship) -> None:
    async with ship.member() as first, ship.member() as second:
        await ship.crew.put_key(ROW, bytes(32))
        for worker in (first, second):
            assert worker.ring is not None
            assert worker.ring.holds(ROW.id)


async def test_whoever_does_not_take_a_key_is_ended_and_the_others_have_it(ship: Ship) -> None:
    async with ship.member() as first, ship.mute():
        await ship.crew.put_key(ROW, bytes(32))
        assert first.ring is not None
        assert first.ring.holds(ROW.id)
        assert ship.ended == [3]


async def test_whoever_does_not_tell_its_figures_is_left_out_and_lives(ship: Ship) -> None:
    async with ship.mute():
        await ship.crew.settled()
        assert ship.ended == []


async def test_in_a_pause_no_worker_gives_keys_and_afterwards_it_has_forgotten_those_of_before(ship: Ship) -> None:
    async with ship.member() as worker:
        before = await worker.keys.keys("standard", DAY, "", ())
        async with ship.vault.paused():
            waiting = asyncio.create_task(worker.keys.keys("standard", DAY, "", ()))
            here = asyncio.create_task(ship.vault.keys("standard", DAY, "", ()))
            await ship.crew.settled()
            assert not waiting.done()
            assert not here.done()
        assert (await waiting).seed != before.seed
        await here


async def test_keys_that_were_asked_for_before_a_pause_are_not_given_in_it(ship: Ship) -> None:
    async with ship.member() as worker:
        asked = asyncio.create_task(worker.keys.keys("standard", DAY, "", ()))
        await asyncio.sleep(0)
        async with ship.vault.paused():
            for _ in range(5):
                await ship.crew.settled()
            assert not asked.done()
        await asked


async def test_a_worker_that_cannot_be_paused_is_ended_before_anything_is_destroyed(ship: Ship) -> None:
    async with ship.mute(), ship.vault.paused():
        assert ship.ended == [3]


async def test_what_a_worker_runs_is_known_in_a_pause(ship: Ship) -> None:
    async with ship.member() as worker:
        worker.journal = _Journal()  # type: ignore[assignment]  # all that is asked of it
        async with ship.vault.paused():
            assert ship.vault.elsewhere == [({"exchange": "e", "subjects": ["s_1"]}, b"k")]
        assert ship.vault.elsewhere == []


class _Journal:
    def live(self) -> list[tuple[dict[str, object], bytes]]:
        return [({"exchange": "e", "subjects": ["s_1"]}, b"k")]


async def test_figures_of_a_worker_that_is_gone_stay_in_the_sums(ship: Ship) -> None:
    async with ship.mute() as member:
        count = Family("asked", "counter", "", [Sample("asked_total", {}, 3.0)])
        gauge = Family("running", "gauge", "", [Sample("running", {}, 3.0)])
        member.figures = [count, gauge]
        for _ in range(2):  # once
            ship.crew.leave(member)
        assert ship.crew._gone == [count]


async def test_exchanges_of_a_worker_that_is_gone_run_no_more(ship: Ship) -> None:
    async with ship.mute() as member:
        ship.crew.runs(2)
        ship.crew.slots._counts[3] = 40
        assert ship.crew.running() == 42
        ship.crew.leave(member)
        assert ship.crew.running() == 2
