"""`keep`: holds get the keys of what they cover, before anything of it is destroyed.

Everything here runs in the keystore's thread, a batch at a time, so that exchanges under way wait for no more than one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import TypeVar

from rempart import limits
from rempart.errors import KeystoreError
from rempart.ledger.erasing.scan import Exchanged, Wanted
from rempart.ledger.keys.body import extract
from rempart.ledger.keys.ggm import KeyTree
from rempart.ledger.keys.holds import Hold, held_key, holds, wrap
from rempart.ledger.keys.keystore import KEY_BYTES, Keystore
from rempart.ledger.keys.recalling import decode_nodes

T = TypeVar("T")


def wanted_by(hold: Hold) -> Wanted | None:
    """What a hold covers beside what it has: None for one of chosen exchanges, whose keys it got as it began."""
    for scope in ("subject", "actor"):
        if scope in hold.scope:
            return Wanted(scope, (hold.scope[scope],))
    return None


def batches(exchanges: Iterable[Exchanged]) -> Iterator[list[Exchanged]]:
    """As many as are asked about at once."""
    left = iter(exchanges)
    while some := list(islice(left, limits.erasure_batch_exchanges)):
        yield some


def keep(keystore: Keystore, exchanges: Iterable[Exchanged], live: Mapping[str, bytes] | None = None) -> None:
    """Durable when it returns; again is no error. `live`: exchange -> key, of those under way. Raises `KeystoreError`.

    What can be read by no key any more is passed over.
    """
    covering = [(hold.id, wanted) for hold in holds(keystore) if (wanted := wanted_by(hold)) is not None]
    if not covering:
        return
    some = list(exchanges)
    keys = {**readable(keystore, some), **(live or {})}
    for hold_id, wanted in covering:
        wrap(
            keystore,
            hold_id,
            {one.exchange: keys[one.exchange] for one in some if one.exchange in keys and wanted.covers(one)},
        )


def kept(keystore: Keystore, exchanges: Iterable[Exchanged]) -> dict[str, int]:
    """Hold -> how many of these it keeps, or will before anything of them is destroyed."""
    found: dict[str, int] = {}
    in_force = [(hold.id, wanted_by(hold)) for hold in holds(keystore)]
    for one in exchanges:
        for hold_id, wanted in in_force:
            covered = wanted is not None and wanted.covers(one)
            if covered or keystore.get("held", f"{hold_id}/{one.exchange}") is not None:
                found[hold_id] = found.get(hold_id, 0) + 1
    return found


def held_among(keystore: Keystore, exchanges: Iterable[Exchanged]) -> set[str]:
    """Ids of those that some hold keeps."""
    names = [hold.id for hold in holds(keystore)]
    return {
        one.exchange
        for one in exchanges
        if any(keystore.get("held", f"{name}/{one.exchange}") is not None for name in names)
    }


def readable(keystore: Keystore, exchanges: Iterable[Exchanged]) -> dict[str, bytes]:
    """Exchange -> key, of those whose own keys all exist. What they share is read once."""
    subject = _once(lambda name: keystore.get("subject", name))
    bucket = _once(lambda name: keystore.get("bucket", name))
    tree = _once(lambda seed: None if (row := keystore.get("seed", seed)) is None else KeyTree(decode_nodes(row)))
    found: dict[str, bytes] = {}
    for one in exchanges:
        rows = [subject(name) for name in sorted(one.subjects)]
        of_bucket, of_seed = bucket(f"{one.retention}/{one.bucket}"), tree(one.seed)
        people = [row[:KEY_BYTES] for row in rows if row is not None]
        if not one.retention or of_bucket is None or of_seed is None or len(people) < len(rows):
            continue
        try:
            leaf = of_seed.leaf(one.leaf)
        except KeystoreError:
            continue  # it was erased
        found[one.exchange] = extract(bytes.fromhex(one.exchange), leaf, of_bucket, people)
    return found


def readable_or_held(keystore: Keystore, exchanges: Iterable[Exchanged]) -> dict[str, bytes]:
    """Exchange -> key, its own or the one that a hold keeps."""
    some = list(exchanges)
    found = readable(keystore, some)
    for one in some:
        if one.exchange not in found and (key := held_key(keystore, one.exchange)) is not None:
            found[one.exchange] = key
    return found


def _once(read: Callable[[str], T]) -> Callable[[str], T]:
    known: dict[str, T] = {}

    def ask(name: str) -> T:
        if name not in known:
            known[name] = read(name)
        return known[name]

    return ask
