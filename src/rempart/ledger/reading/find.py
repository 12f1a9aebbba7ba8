"""`find`: entries of a ledger with what they hold, for those who have its keys."""

from __future__ import annotations

from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any

import msgspec

from rempart.errors import KeystoreError, NotFound
from rempart.ledger.keys import body as bodies
from rempart.ledger.keys.keystore import Keystore
from rempart.ledger.keys.vault import recall
from rempart.ledger.log import entry as entries
from rempart.ledger.store import frames
from rempart.ledger.store.segments import numbers, segment_path
from rempart.ledger.writing.recover import read_segment

_LABELS = {"request": bodies.REQUEST, "response": bodies.RESPONSE}


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """One entry."""

    index: int
    entry: dict[str, Any]
    body: Any = None
    """What was said, when it was asked for and can be read."""
    unreadable: str = ""
    """Why the body cannot be read, when it cannot."""


def find(segments: Path, wanted: str, keystore: Keystore | None) -> list[Found]:
    """`wanted`: an exchange's id, or an entry's index. Without a keystore: without bodies. Raises `NotFound`."""
    found = [
        _found(frame, fields, keystore)
        for frame, fields in newest_first(segments)
        if (str(frame.number) == wanted if wanted.isdigit() and len(wanted) < 20 else fields.get("exchange") == wanted)
    ]
    if not found:
        raise NotFound(f"The ledger has no entry {wanted!r}.", hint="Give an entry's index, or an exchange's id.")
    return sorted(found, key=lambda one: one.index)


def last(segments: Path, count: int, after: int = -1) -> list[Found]:
    """The last entries, oldest first, at most `count`, none up to index `after`."""
    found: list[Found] = []
    for frame, fields in newest_first(segments):
        if len(found) == count or frame.number <= after:
            break
        found.append(Found(index=frame.number, entry=fields))
    return found[::-1]


def newest_first(segments: Path) -> Iterator[tuple[frames.Frame, dict[str, Any]]]:
    """Entries from the last one back: frame and fields. Raises `LedgerCorrupt`."""
    for number in reversed(numbers(segments)):
        for frame in reversed(read_segment(segment_path(segments, number)).frames):
            if frame.kind == frames.Kind.ENTRY:
                yield frame, entries.decode(frame.entry)


def _found(frame: frames.Frame, fields: dict[str, Any], keystore: Keystore | None) -> Found:
    if keystore is None or not frame.body:
        return Found(index=frame.number, entry=fields)
    try:
        content = reveal(frame.body, fields, keystore).content
    except KeystoreError as error:
        return Found(index=frame.number, entry=fields, unreadable=error.message)
    return Found(index=frame.number, entry=fields, body=msgspec.json.decode(content))


def find_revealed(segments: Path, indices: Container[int], keystore: Keystore) -> dict[int, bodies.Revealed]:
    """Index -> what its body holds, of those entries that have one. Raises `KeystoreError` when one cannot be read."""
    return {
        frame.number: reveal(frame.body, fields, keystore)
        for frame, fields in newest_first(segments)
        if frame.body and frame.number in indices
    }


def reveal(body: bytes, fields: dict[str, Any], keystore: Keystore) -> bodies.Revealed:
    """What an entry's encrypted body holds. Raises `KeystoreError` when its keys were destroyed, `LedgerCorrupt`."""
    exchange = bytes.fromhex(fields["exchange"])
    label = _LABELS[fields["type"]]
    key = bodies.expand(recall(keystore, fields).exchange_key(exchange), label)
    return bodies.unseal(key, exchange, label, body, fields["commitment"])
