"""`expire`: buckets whose class has had its days end: their key, their part of the index, their bodies.

A class that is not in the settings any more is not touched: nobody knows how long its exchanges are kept.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import msgspec

from rempart import limits
from rempart.errors import LedgerUnavailable, RempartError
from rempart.ledger.erasing.fulfil import Fulfilled, carry_out, clear_bodies, finish
from rempart.ledger.erasing.keeping import kept, readable
from rempart.ledger.erasing.pending import Decided
from rempart.ledger.erasing.records import Records, bodies_of
from rempart.ledger.erasing.scan import Wanted
from rempart.ledger.log import entry as entries
from rempart.ledger.reading.entries import EntryReader
from rempart.ledger.store.bodies import BodyStore, bodies_directory

_log = logging.getLogger("rempart.ledger")
_LOOK_S = 60.0
_OPERATOR = "rempart"
_LEAPT = (
    f"the clock is over {limits.clock_lived_days} days ahead of the last entries. If it is right, wait two days, "
    "or run 'rempart ledger expire'"
)
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


class Due(msgspec.Struct, frozen=True, kw_only=True):
    """What is due on a day."""

    buckets: list[tuple[str, str]]
    """Class and UTC day, oldest first: their keys still exist."""
    late: list[tuple[str, str]]
    """Expired before; bodies of theirs came to the disk again since, out of a segment that was taken apart."""
    unknown: list[str]
    """Classes that the settings do not have: they stay."""


class Expired(msgspec.Struct, frozen=True, kw_only=True):
    """What expired."""

    retention: str = msgspec.field(name="class")
    bucket: str
    certificate: Fulfilled


async def due(records: Records) -> Due:
    """Changes nothing."""
    today = records.today()
    with_keys = set(await records.ask(lambda keystore: [_split(name) for name in keystore.ids("bucket")]))
    with_bodies = set(await asyncio.to_thread(BodyStore(bodies_directory(records.ledger)).buckets))
    over = [name for name in with_keys | with_bodies if _is_over(records, name, today)]
    return Due(
        buckets=sorted((name for name in over if name in with_keys), key=lambda name: (name[1], name[0])),
        late=sorted(name for name in over if name not in with_keys),
        unknown=sorted({retention for retention, _ in with_keys | with_bodies} - set(records.classes)),
    )


async def expire(records: Records, *, stopping: Callable[[], bool] = lambda: False) -> list[Expired]:
    """Each bucket has its certificate when it returns; `stopping` is asked between two. Raises any `RempartError`."""
    found: list[Expired] = []
    async with records.lock:
        await finish(records)
        wanted = await due(records)
        for retention, bucket in wanted.late:
            exchanges = (await records.scan(Wanted("bucket", (retention, bucket)))).exchanges
            await clear_bodies(records, retention, bucket, exchanges)
        for retention, bucket in wanted.buckets:
            if stopping():
                break
            done = await _expire(records, retention, bucket)
            found.append(Expired(retention=retention, bucket=bucket, certificate=done))
    return found


async def expire_daily(records: Records, stop: asyncio.Event) -> None:
    """At once and on each new UTC day, until `stop` is set. What fails is told and tried again on the next look.

    While the clock may have leapt ahead (a dead battery, a wrong time server) nothing ends: it could not be undone.
    """
    done: date | None = None
    while not stop.is_set():
        if done != records.today():
            try:
                if not await asyncio.to_thread(_has_lived, records.ledger, records.today()):
                    raise LedgerUnavailable(_LEAPT)
                expired = await expire(records, stopping=stop.is_set)
                done = records.today()
            except (RempartError, OSError) as error:
                _log.error("Expiry failed, and is tried again: %s", error)
            else:
                if expired:
                    _log.info("expired", extra={"buckets": len(expired)})
        try:
            async with asyncio.timeout(_LOOK_S):
                await stop.wait()
        except TimeoutError:
            continue


async def _expire(records: Records, retention: str, bucket: str) -> Fulfilled:
    wanted = Wanted("bucket", (retention, bucket))
    scanned = await records.scan(wanted)
    ids = {id_ for some in await records.ask_all(scanned.exchanges.values(), readable) for id_ in some}
    alive = [one for one in scanned.exchanges.values() if one.exchange in ids]
    holds: dict[str, int] = {}
    for some in await records.ask_all(scanned.exchanges.values(), kept):
        for hold_id, count in some.items():
            holds[hold_id] = holds.get(hold_id, 0) + count
    decided = Decided(
        verb="expire",
        wanted=wanted,
        ground=records.classes[retention].basis,
        by=_OPERATOR,
        role=_OPERATOR,
        counts={"exchanges": len(alive), "bodies": bodies_of(alive)},
        kept=holds,
    )
    return await carry_out(records, decided, scanned)


def _has_lived(ledger: Path, today: date) -> bool:
    """Whether some entry is of the days before yesterday, or the log is younger than that. Raises `LedgerCorrupt`."""
    reader = EntryReader(ledger)
    begin, end = (f"{today - timedelta(days=days)}" for days in (limits.clock_lived_days, 1))
    times = (entries.facts(entry).time for _, entry in reader.forward(reader.since(begin)))
    first = next((time for time in times if time >= begin), "")
    return begin <= first < end or entries.facts(reader.read(0)).time >= begin


def _split(name: str) -> tuple[str, str]:
    retention, _, bucket = name.partition("/")
    return retention, bucket


def _is_over(records: Records, name: tuple[str, str], today: date) -> bool:
    known = records.classes.get(name[0])
    return known is not None and _DAY.fullmatch(name[1]) is not None and known.expired(name[1], today)
