"""`rempart.ledger.writing.lost`: exchanges that nobody goes on with are closed while the log is being written."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from rempart.ledger.erasing.erase import Order, erase
from rempart.ledger.writing.journal import ExchangeRecord
from rempart.ledger.writing.lost import close_lost
from rempart.ledger.writing.recover import find_lost
from rempart.testing.small_site import SmallSite


@contextlib.asynccontextmanager
async def small(path: Path) -> AsyncIterator[SmallSite]:
    site = SmallSite(path)
    async with site.run():
        yield site
    site.check()


async def say(record: ExchangeRecord, *words: str) -> None:
    for word in words:
        done = record.piece(msgspec.json.encode(word))
        if done is not None:
            await done


async def close(site: SmallSite, *ids: str) -> None:
    known = site.journal.sequencer.open_exchanges()
    for lost in await asyncio.to_thread(find_lost, site.ledger, [known[id_] for id_ in ids]):
        await close_lost(site.journal, lost)


async def test_what_was_said_until_then_is_its_answer_and_others_go_on(tmp_path: Path) -> None:
    async with small(tmp_path) as site:
        lost, record = await site.begin("left behind")
        kept, other = await site.begin("still there")
        await say(record, "As far ", "as this")
        await say(other, "not ", "this")
        await close(site, lost)
        assert list(site.journal.sequencer.open_exchanges()) == [kept]
        await site.answer(other, "still there")
        await site.exchange("afterwards")
    response = site.find(lost)[-1]
    assert (response.entry["outcome"], response.entry["request"]) == ("lost", site.find(lost)[0].index)
    assert b"As far as this" in msgspec.json.encode(response.body)
    assert site.find(kept)[-1].entry["outcome"] == "ok"


async def test_nothing_is_found_of_what_is_not_asked_for(tmp_path: Path) -> None:
    async with small(tmp_path) as site:
        id_, record = await site.begin("still there")
        await close(site)
        assert list(site.journal.sequencer.open_exchanges()) == [id_]
        await site.answer(record, "still there")


async def test_an_exchange_whose_person_was_erased_is_closed_without_a_body(tmp_path: Path) -> None:
    async with small(tmp_path) as site:
        lost, record = await site.begin("secret", "Erika")
        await say(record, "so far")
        order = Order(scope="subject", name="Erika", ground="GDPR art. 17(1)(a)", by="operator", role="operator")
        await erase(site.records, order)
        await close(site, lost)
        assert not site.journal.sequencer.open_exchanges()
    response = site.find(lost)[-1].entry
    assert response["outcome"] == "lost"
    assert "body" not in response
