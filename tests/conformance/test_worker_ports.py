"""What a worker has of its primary is held to what the primary's own is held to."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rempart.errors import LedgerUnavailable, NotFound, Overloaded
from rempart.gateway.counts import Counts
from rempart.gateway.workers import messages as m
from rempart.gateway.workers.crew import Crew
from rempart.gateway.workers.desk import Books, Desk
from rempart.gateway.workers.remote import RemoteAccounts, RemoteKeys, RemoteTally, RemoteWitness
from rempart.identity.quota import Meter
from rempart.ipc.talk import Talk
from rempart.ledger.keys.keystore import Keystore
from rempart.ledger.keys.source import KeystoreThread
from rempart.testing.check_accounts import check_accounts
from rempart.testing.check_keys import check_keys
from rempart.testing.talking import Side, talking


class Primary:
    """What one has, and a worker's talk with it."""

    def __init__(self, path: Path) -> None:
        self.keys = KeystoreThread(Keystore.create(path))
        self.meter = Meter()
        self.counts = Counts(("one",))
        self.crew = Crew(2)
        self.desk = Desk(Books(keys=self.keys, meter=self.meter, counts=self.counts, witness=None), self.crew)

    async def forget(self, pseudonym: str) -> None:
        await self.keys.ask(lambda keystore: keystore.destroy([("subject", pseudonym)]))

    @contextlib.asynccontextmanager
    async def worker(self) -> AsyncIterator[Talk]:
        async with talking(Side(m.TO_PRIMARY, self.desk.answer, self.desk.hear)) as (_, worker):
            yield worker


@pytest.fixture
async def primary(tmp_path: Path) -> AsyncIterator[Primary]:
    made = Primary(tmp_path / "keys")
    yield made
    made.crew.close()
    made.keys.close()


async def test_keys_of_the_keystores_thread(primary: Primary) -> None:
    await check_keys(primary.keys, primary.forget)


async def test_keys_over_the_desks_socket(primary: Primary) -> None:
    async with primary.worker() as worker:
        await check_keys(RemoteKeys(worker), primary.forget)


async def test_accounts_in_process() -> None:
    await check_accounts(Meter())


async def test_accounts_over_the_desks_socket(primary: Primary) -> None:
    async with primary.worker() as worker:
        await check_accounts(RemoteAccounts(worker))
        await RemoteKeys(worker).new_seed()  # what was told before is heard by then
    totals = primary.meter.totals(0.0)
    assert totals == {"free": 150, "minute": totals["minute"], "day": 250, "unsaid": 500}


async def test_what_a_worker_counts_is_counted_and_what_it_left_is_counted_no_more(primary: Primary) -> None:
    async with primary.worker() as worker:
        tally = RemoteTally(worker)
        for _ in range(3):
            tally.dispatched("one")
        tally.ended("one", answered=True, tokens_prompt=2, tokens_completion=5)
        tally.recorded("key", 0.0)
        await RemoteKeys(worker).new_seed()
        assert primary.counts.engines()["one"]["running"] == 2
        primary.desk.give_back()
        assert primary.counts.engines()["one"]["running"] == 2
        primary.desk.forget()
    assert primary.counts.engines()["one"] == {
        "dispatched": 1,
        "answered": 1,
        "failed": 0,
        "running": 0,
        "tokens_prompt": 2,
        "tokens_completion": 5,
    }
    assert primary.counts.changed_keys() == {"key": 1}


async def test_what_was_handed_on_runs_until_it_ends_and_is_counted_then(primary: Primary) -> None:
    async with primary.worker() as worker:
        tally = RemoteTally(worker)
        tally.dispatched("one")
        for _ in range(2):
            tally.retried("two")
        await RemoteKeys(worker).new_seed()
        counted = primary.counts.engines()["two"]
        assert (counted["dispatched"], counted["running"]) == (0, 2)
        tally.ended("one", answered=False, tokens_prompt=0, tokens_completion=0)
        tally.ended("two", answered=True, tokens_prompt=2, tokens_completion=5, retried=True)
        await RemoteKeys(worker).new_seed()
        assert primary.counts.engines()["one"]["failed"] == 1
        primary.desk.forget()
    counted = primary.counts.engines()["two"]
    assert (counted["dispatched"], counted["answered"], counted["running"]) == (1, 1, 0)


class _Witness:
    async def add_checkpoint(self, body: bytes) -> m.Cosigned:
        if body == b"busy":
            raise Overloaded("Too many.", hint="Try again.", retry_after_s=3)
        return m.Cosigned(409, body[::-1], b"text/x.tlog.size")


async def test_what_a_worker_is_asked_as_a_witness_the_primary_answers(primary: Primary) -> None:
    async with primary.worker() as worker:
        with pytest.raises(NotFound):
            await RemoteWitness(worker).add_checkpoint(b"abc")
    primary.desk = Desk(
        Books(keys=primary.keys, meter=primary.meter, counts=primary.counts, witness=_Witness()), primary.crew
    )
    async with primary.worker() as worker:
        answer = await RemoteWitness(worker).add_checkpoint(b"abc")
        assert (answer.status, answer.body, answer.content_type) == (409, b"cba", b"text/x.tlog.size")
        with pytest.raises(Overloaded) as caught:
            await RemoteWitness(worker).add_checkpoint(b"busy")
        assert caught.value.retry_after_s == 3


async def test_a_primary_that_is_gone_gives_no_keys(primary: Primary) -> None:
    async with primary.worker() as worker:
        keys = RemoteKeys(worker)
        await keys.new_seed()
    with pytest.raises(LedgerUnavailable):
        await keys.new_seed()
