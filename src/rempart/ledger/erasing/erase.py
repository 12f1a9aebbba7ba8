"""`erase`: what is known of a person, of a key's owner, or what was said in one exchange, before its time is over.

Of a person the key and the name end, and with them every body that is about that person, whoever else it is about. Of
one exchange its record key ends. Of a key's owner the name ends; bodies only in classes with `erase_with_actor`.
Entries stay: the tree verifies as before. What must be kept refuses the whole, with the reason and the last day.
"""

from __future__ import annotations

import asyncio
import re
from typing import Final, Literal

import msgspec

from rempart import limits
from rempart.errors import ErasureRefused, NotFound
from rempart.ledger.erasing.backups import Backups, read_row
from rempart.ledger.erasing.certificate import check_ground
from rempart.ledger.erasing.fulfil import Fulfilled, carry_out, finish
from rempart.ledger.erasing.keeping import kept, readable
from rempart.ledger.erasing.pending import Decided
from rempart.ledger.erasing.records import Records, bodies_of
from rempart.ledger.erasing.scan import Exchanged, Scanned, Wanted
from rempart.ledger.keys.keystore import Keystore
from rempart.ledger.reading.backups import Backup

_PSEUDONYM: Final = re.compile(r"([as])_[0-9a-f]{32}")
_EXCHANGE: Final = re.compile(r"[0-9a-f]{32}")
_PREFIXES: Final = {"subject": "s", "actor": "a"}


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for."""

    scope: Literal["subject", "actor", "exchange"]
    name: str
    """An identity in clear or its pseudonym; of an exchange its id."""
    ground: str
    by: str
    """Pseudonym of who asks, or `operator`."""
    role: str


class Planned(msgspec.Struct, frozen=True, kw_only=True):
    """What would end."""

    counts: dict[str, int]
    """`exchanges` and `bodies` that can still be read; `others`: people beside, whom those are also about."""
    kept: dict[str, int]
    """Hold -> exchanges that stay readable."""


class Erased(msgspec.Struct, frozen=True, kw_only=True):
    """What ended."""

    certificate: Fulfilled
    backups: list[Backup]
    """Older copies of keys/ that still count: with their roots they open what was erased."""


async def plan(records: Records, order: Order) -> Planned:
    """Changes nothing. Raises what `erase` would: `ErasureRefused`, `NotFound`, `UsageError`."""
    check_ground(order.ground)
    async with records.lock:
        wanted = await resolve(records, order.scope, order.name)
        return (await _plan(records, wanted))[0]


async def erase(records: Records, order: Order) -> Erased:
    """It is done, and its certificate durable, when it returns. Raises `ErasureRefused`, `NotFound`, `UsageError`.

    After any other error it is done before the next erasure, or at the next start.
    """
    check_ground(order.ground)
    async with records.lock:
        await finish(records)
        wanted = await resolve(records, order.scope, order.name)
        planned, scanned = await _plan(records, wanted)
        decided = Decided(
            verb="erase",
            wanted=wanted,
            ground=order.ground,
            by=order.by,
            role=order.role,
            counts=planned.counts,
            kept=planned.kept,
        )
        done = await carry_out(records, decided, scanned)
        return Erased(certificate=done, backups=await older_backups(records, done.epoch))


async def resolve(records: Records, scope: str, name: str) -> Wanted:
    """Whose or which exchanges. Raises `NotFound`; its message does not repeat a name."""
    if scope == "exchange":
        if not _EXCHANGE.fullmatch(name):
            raise NotFound("That is no id of an exchange.", hint="An id has 32 hex digits; see 'rempart ledger tail'.")
        return Wanted("exchange", (name,))
    assert scope in ("subject", "actor")
    pseudonym = await records.ask(lambda keystore: _pseudonym(keystore, _PREFIXES[scope], name))
    return Wanted("subject" if scope == "subject" else "actor", (pseudonym,))


async def older_backups(records: Records, epoch: int) -> list[Backup]:
    """Copies of the keys from before an epoch, of which nobody said that they are gone."""
    known = Backups(await records.ask(read_row))
    await _read(records, known)
    return known.since(epoch)


async def forget_backup(records: Records, id_: str, by: str, role: str) -> int:
    """Someone states that a copy was destroyed; the index of the entry that says so. Raises `NotFound`."""
    async with records.lock:
        known = Backups(await records.ask(read_row))
        await _read(records, known)
        known.require(id_)
        receipt = await records.journal.event("backup", {"backup": id_, "destroyed": True, "by": by, "role": role})
        return receipt.index


async def _read(records: Records, known: Backups) -> None:
    await asyncio.to_thread(known.read, records.ledger)
    await records.ask(lambda keystore: keystore.put(known.row()))


def _pseudonym(keystore: Keystore, prefix: str, name: str) -> str:
    match = _PSEUDONYM.fullmatch(name)
    if match is not None and match[1] == prefix:
        return name
    identity = name[: limits.subject_chars_max]
    for text in (identity, identity.encode().decode("latin-1")):  # headers of earlier releases were read as Latin-1
        found = keystore.get(*keystore.lookup(prefix, text))
        if found is not None:
            return found.decode()
    raise NotFound("Nobody is known by that name here, or no longer.", hint="Give it as it was sent, or a pseudonym.")


async def _plan(records: Records, wanted: Wanted) -> tuple[Planned, Scanned]:
    scanned = await records.scan(wanted)
    if wanted.scope == "exchange" and not scanned.exchanges:
        raise NotFound("There is no such exchange.", hint="See 'rempart ledger tail'.")
    exchanges = list(scanned.exchanges.values())
    _require_erasable(records, exchanges)
    if wanted.scope == "actor":
        exchanges = [one for one in exchanges if one.retention and records.classes[one.retention].erase_with_actor]
    named = await records.ask(lambda keystore: keystore.get("subject", wanted.names[0]) is not None)
    ids = {id_ for some in await records.ask_all(exchanges, readable) for id_ in some}
    alive = [one for one in exchanges if one.exchange in ids]
    if not named and not alive and not scanned.exchanges:
        raise NotFound("Nobody is known by that pseudonym here.", hint="See 'rempart key list'.")
    others = {name for one in alive for name in one.subjects} - set(wanted.names)
    holds: dict[str, int] = {}
    for some in await records.ask_all(alive, kept):
        for hold_id, count in some.items():
            holds[hold_id] = holds.get(hold_id, 0) + count
    counts = {"exchanges": len(alive), "bodies": bodies_of(alive), "others": len(others)}
    return Planned(counts=counts, kept=holds), scanned


def _require_erasable(records: Records, exchanges: list[Exchanged]) -> None:
    """All or nothing. Raises `ErasureRefused`."""
    buckets: dict[tuple[str, str], int] = {}
    for one in exchanges:
        if one.retention:
            buckets[one.where] = buckets.get(one.where, 0) + 1
    refused: dict[tuple[str, str], str] = {}
    for retention, bucket in buckets:
        known = records.classes.get(retention)
        if known is None:
            raise ErasureRefused(
                f"The retention class {retention} is not in the settings any more: it may not be erased.",
                hint=f"Give the section [retention.{retention}] again, as it was.",
            )
        reason = known.refusal(bucket, records.today())
        if reason:
            refused[retention, bucket] = reason
    if refused:
        last = max(refused, key=lambda name: records.classes[name[0]].last_day(name[1]))
        count = sum(buckets[name] for name in refused)
        raise ErasureRefused(
            f"Nothing was erased: {count} of {sum(buckets.values())} exchanges must be kept. {refused[last]}",
            hint=f"Erase them after {records.classes[last[0]].last_day(last[1]).isoformat()}, the last of these days.",
        )
