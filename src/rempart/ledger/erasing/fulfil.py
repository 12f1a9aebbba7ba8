"""`fulfil`: what stands in a pending row is done to its end, in the first go as after a crash. The order:

1. API keys of who is erased are revoked; holds get the keys of all that they cover of it.
2. Nobody begins an exchange; what came meanwhile, and what is under way, is held too; the rows are destroyed; the keys
   in memory are dropped. An exchange under way has the one key of its own bodies until its response is written.
3. The partitions of the search index are rewritten without what was just destroyed, or dropped.
4. The bodies of an expired bucket leave the disk.
5. The certificate is written, once, and the pending row removed.

Each step may be done again. What one of them raises leaves the row, and it is done again before the next erasure.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from rempart.errors import DirectoryLocked, LedgerUnavailable
from rempart.ledger.erasing import clearing
from rempart.ledger.erasing import pending as rows
from rempart.ledger.erasing.certificate import certificate, is_written
from rempart.ledger.erasing.keeping import held_among, keep, readable_or_held
from rempart.ledger.erasing.pending import Decided, Pending
from rempart.ledger.erasing.records import Records, new_id
from rempart.ledger.erasing.scan import Exchanged, Exchanges, Scanned, merge
from rempart.ledger.keys.ggm import KeyTree
from rempart.ledger.keys.holds import Hold, hold, holds, release, wrap
from rempart.ledger.keys.keystore import Keystore
from rempart.ledger.keys.recalling import decode_nodes, encode_nodes
from rempart.ledger.search.writer import IndexWriter, Key


class Fulfilled(msgspec.Struct, frozen=True, kw_only=True):
    """What the certificate says, and where it stands."""

    id: str
    epoch: int
    index: int
    """Of its entry."""
    counts: dict[str, int]
    kept: dict[str, int]


async def finish(records: Records) -> int:
    """Do what a crash or a failure left undone; how many there were. The caller has the lock, or serves nobody yet."""
    left = await records.ask(rows.unfinished)
    for pending in left:
        if await asyncio.to_thread(is_written, records.ledger, pending):
            await records.ask(lambda keystore, one=pending: rows.end(keystore, one))  # type: ignore[misc]
        else:
            await fulfil(records, pending)
    return len(left)


async def carry_out(records: Records, decided: Decided, known: Scanned | None = None) -> Fulfilled:
    """Begin it and do it to its end: after a crash in between it is done at the next start.

    The caller has the lock, and called `finish` before. `known`, and what it raises: as `fulfil`.
    """
    row = Pending(id=new_id(), first=records.entries, began=records.now(), **msgspec.structs.asdict(decided))
    await records.ask(lambda keystore: rows.begin(keystore, row))
    return await fulfil(records, row, known)


async def fulfil(records: Records, pending: Pending, known: Scanned | None = None) -> Fulfilled:
    """`known`: what a look at the log has just found. Raises any `RempartError`, `OSError`; the row then stays."""
    scanned = known or await records.scan(pending.wanted)
    match pending.verb:
        case "hold":
            epoch = await _hold(records, pending, scanned)
        case "agree":
            epoch = await records.ask(lambda keystore: _agree(keystore, pending))
        case "release":
            epoch = await _release(records, pending, scanned)
        case "erase":
            epoch = await _erase(records, pending, scanned)
        case "expire":
            epoch = await _expire(records, pending, scanned)
    return await _certify(records, pending, epoch)


async def _certify(records: Records, pending: Pending, epoch: int) -> Fulfilled:
    receipt = await records.journal.event(*certificate(pending, epoch))
    await records.ask(lambda keystore: rows.end(keystore, pending))
    return Fulfilled(
        id=pending.id, epoch=epoch, index=receipt.index, counts=dict(pending.counts), kept=dict(pending.kept)
    )


# Erasure and expiry.


async def _erase(records: Records, pending: Pending, scanned: Scanned) -> int:
    if pending.wanted.scope != "exchange":
        await records.revoke(pending.wanted.names[0])
    epoch, upto = await _destroy(records, pending, scanned)
    # What could be read until now was written until now: entries of just before may have come into the index.
    late = await records.scan(pending.wanted, upto)
    touched = [*scanned.exchanges.values(), *late.exchanges.values()]
    erased = [one for one in touched if _dies(records, pending, one)]
    await _rewrite_index(records, erased)
    return epoch


async def _expire(records: Records, pending: Pending, scanned: Scanned) -> int:
    retention, bucket = pending.wanted.names
    epoch, _ = await _destroy(records, pending, scanned)
    index = records.ledger / "index"
    if index.is_dir():
        await asyncio.to_thread(_drop, index, retention, bucket)
    await clear_bodies(records, retention, bucket, scanned.exchanges)
    return epoch


async def clear_bodies(records: Records, retention: str, bucket: str, exchanges: Exchanges) -> int:
    """Files of bodies that left the disk. `exchanges`: those of the bucket."""
    batches = await records.ask_all(exchanges.values(), held_among)
    held = [index for some in batches for id_ in some for index in exchanges[id_].indices]
    return await asyncio.to_thread(clearing.clear, records.ledger, retention, bucket, held)


async def _destroy(records: Records, pending: Pending, scanned: Scanned) -> tuple[int, int]:
    """The epoch that holds then, and up to which entry the log was looked at before."""
    await records.ask_all(scanned.exchanges.values(), keep)
    async with records.journal.vault.paused():
        late = await records.scan(pending.wanted, scanned.upto)
        live: dict[str, bytes] = {}
        for fields, key in records.journal.live():
            one = msgspec.convert(fields, Exchanged)
            if pending.wanted.covers(one):
                merge(late.exchanges, one)
                live[one.exchange] = key
        await records.ask(lambda keystore: keep(keystore, late.exchanges.values(), live))
        seeds = _leaves(records, pending, [*scanned.exchanges.values(), *late.exchanges.values()])
        epoch = await records.ask(lambda keystore: _destroy_rows(keystore, pending, seeds))
    return epoch, late.upto


def _dies(records: Records, pending: Pending, one: Exchanged) -> bool:
    """Whether the bodies of this exchange end: of an owner's, those of classes that say so."""
    if pending.wanted.scope != "actor":
        return bool(one.retention)
    return one.retention in records.classes and records.classes[one.retention].erase_with_actor


def _leaves(records: Records, pending: Pending, exchanges: list[Exchanged]) -> dict[str, set[int]]:
    """Seed -> leaves that end. A person's bodies end with the person's key, a bucket's with the bucket's."""
    found: dict[str, set[int]] = {}
    if pending.wanted.scope in ("exchange", "actor"):
        for one in exchanges:
            if _dies(records, pending, one):
                found.setdefault(one.seed, set()).add(one.leaf)
    return found


def _destroy_rows(keystore: Keystore, pending: Pending, seeds: Mapping[str, set[int]]) -> int:
    """All in one epoch; the present one when nothing of it exists any more."""
    delete: list[tuple[str, str]] = []
    replace: dict[tuple[str, str], bytes] = {}
    name = pending.wanted.names[0]
    if pending.wanted.scope in ("subject", "actor") and keystore.get("subject", name) is not None:
        delete = [("subject", name), keystore.lookup(name[0], keystore.identity(name))]
    if pending.wanted.scope == "bucket":
        bucket = ("bucket", "/".join(pending.wanted.names))
        delete = [] if keystore.get(*bucket) is None else [bucket]
    for seed, leaves in seeds.items():
        row = keystore.get("seed", seed)
        tree = KeyTree([] if row is None else decode_nodes(row))
        left = tree.without_all(leaves)
        if left is not tree:
            replace["seed", seed] = encode_nodes(left.nodes)
    return keystore.destroy(delete, replace) if delete or replace else keystore.epoch


# Holds.


async def _hold(records: Records, pending: Pending, scanned: Scanned) -> int:
    described = Hold(
        id=pending.hold,
        reason=pending.ground,
        by=pending.by,
        began=pending.began,
        scope={pending.wanted.scope: pending.wanted.names[0] if pending.wanted.scope != "exchange" else "chosen"},
    )
    await records.ask(lambda keystore: hold(keystore, described))
    await records.ask_all(scanned.exchanges.values(), lambda keystore, some: _wrap(keystore, pending.hold, some))
    return await records.ask(lambda keystore: keystore.epoch)


def _wrap(keystore: Keystore, hold_id: str, some: list[Exchanged]) -> None:
    wrap(keystore, hold_id, readable_or_held(keystore, some))


def _agree(keystore: Keystore, pending: Pending) -> int:
    for one in holds(keystore):
        if one.id == pending.hold and pending.by not in one.released_by:
            hold(keystore, msgspec.structs.replace(one, released_by=(*one.released_by, pending.by)))
    return keystore.epoch


async def _release(records: Records, pending: Pending, scanned: Scanned) -> int:
    epoch = await records.ask(lambda keystore: _release_rows(keystore, pending.hold))
    exchanges = list(scanned.exchanges.values())
    alive: set[str] = set()
    for some in await records.ask_all(exchanges, readable_or_held):
        alive |= some.keys()
    await _rewrite_index(records, [one for one in exchanges if one.exchange not in alive])
    if clearing.held_buckets(records.ledger):
        still = await records.ask(_all_held)
        await asyncio.to_thread(clearing.prune, records.ledger, still)
    return epoch


def _release_rows(keystore: Keystore, hold_id: str) -> int:
    return release(keystore, hold_id) if keystore.get("hold", hold_id) is not None else keystore.epoch


def _all_held(keystore: Keystore) -> set[str]:
    return {name.partition("/")[2] for name in keystore.ids("held")}


# The search index.


async def _rewrite_index(records: Records, exchanges: list[Exchanged]) -> None:
    """Words of what is held go too: what a hold keeps is read by its id."""
    index = records.ledger / "index"
    entries = [at for one in exchanges for at in one.indices]
    if not index.is_dir() or not entries:
        return
    names = {one.where for one in exchanges if one.retention}
    keys = await records.ask(lambda keystore: {name: keystore.get("bucket", "/".join(name)) for name in names})
    await asyncio.to_thread(_erase_from, index, keys, entries)


def _erase_from(index: Path, keys: Mapping[tuple[str, str], bytes | None], entries: list[int]) -> None:
    with _writing(index, lambda retention, bucket: keys.get((retention, bucket))) as writer:
        writer.erase(entries)


def _drop(index: Path, retention: str, bucket: str) -> None:
    with _writing(index, _no_key) as writer:
        writer.drop(retention, bucket)


@contextlib.contextmanager
def _writing(index: Path, key: Key) -> Iterator[IndexWriter]:
    """Raises `LedgerUnavailable` when a builder does not let go of the index."""
    try:
        writer = IndexWriter(index, key)
    except DirectoryLocked as error:
        raise LedgerUnavailable(error.message, hint="The erasure is finished before the next one.") from error
    with writer:
        yield writer


def _no_key(*_: Any) -> None:
    """To drop a partition none is needed."""
