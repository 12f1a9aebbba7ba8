"""`find`: entries of a ledger with what they hold, for those who have its keys."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from rempart.errors import KeystoreError, NotFound
from rempart.ledger.keys import body as bodies
from rempart.ledger.keys.keystore import Keystore
from rempart.ledger.keys.recalling import exchange_key
from rempart.ledger.log import entry as entries
from rempart.ledger.reading.entries import EntryReader, Placed
from rempart.ledger.store.logfiles import previous_directory, previous_logs

_INDEX_DIGITS: Final = 20
_NO_ENTRY: Final = "Give an entry's index, or an exchange's id."


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """One entry."""

    index: int
    entry: dict[str, Any]
    body: Any = None
    """What was said, when it was asked for and can be read."""
    unreadable: str = ""
    """Why the body cannot be read, when it cannot."""


def find(ledger: Path, wanted: str, keystore: Keystore | None) -> list[Found]:
    """`ledger` is `<data>/ledger`; `wanted` an exchange's id, or an entry's index.

    Without a keystore: without bodies. Raises `NotFound`.
    """
    reader = EntryReader(ledger)
    placed: list[Placed] = []
    if wanted.isdecimal() and len(wanted) < _INDEX_DIGITS:
        if int(wanted) < reader.count:
            placed = [(int(wanted), reader.read(int(wanted)))]
    else:
        placed = reader.of_exchange(wanted)
    if not placed:
        raise NotFound(f"The ledger has no entry {wanted!r}.", hint=_NO_ENTRY)
    return [_found(reader, index, entries.decode(entry), keystore) for index, entry in placed]


def find_everywhere(ledger: Path, wanted: str, keystore: Keystore | None) -> list[Found]:
    """As `find`; an exchange is looked for in the logs that this one continues, too."""
    before = [] if wanted.isdecimal() and len(wanted) < _INDEX_DIGITS else previous_logs(ledger)
    for directory in (ledger, *(previous_directory(ledger, number) for number in reversed(before))):
        with contextlib.suppress(NotFound):
            return find(directory, wanted, keystore)
    raise NotFound(f"The ledger has no entry {wanted!r}.", hint=_NO_ENTRY)


def last(ledger: Path, count: int, after: int = -1) -> list[Found]:
    """The last entries, oldest first, at most `count`, none up to index `after`."""
    found: list[Found] = []
    for index, fields in newest_first(ledger):
        if len(found) == count or index <= after:
            break
        found.append(Found(index=index, entry=fields))
    return found[::-1]


def newest_first(ledger: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Entries from the last one back: index and fields. Raises `LedgerCorrupt`."""
    for index, entry in EntryReader(ledger).newest_first():
        yield index, entries.decode(entry)


def _found(reader: EntryReader, index: int, fields: dict[str, Any], keystore: Keystore | None) -> Found:
    if keystore is None or not fields.get("body"):
        return Found(index=index, entry=fields)
    try:
        content = _reveal(reader, index, fields, keystore)
    except KeystoreError as error:
        return Found(index=index, entry=fields, unreadable=error.message)
    if content is None:
        return Found(index=index, entry=fields, unreadable="it is not in the ledger any more.")
    return Found(index=index, entry=fields, body=msgspec.json.decode(content.content))


def find_revealed(ledger: Path, indices: Iterable[int], keystore: Keystore) -> dict[int, bodies.Revealed]:
    """Index -> what its body holds, of those entries that have one. Raises `KeystoreError` when one cannot be read."""
    reader = EntryReader(ledger)
    found: dict[int, bodies.Revealed] = {}
    for index in indices:
        revealed = _reveal(reader, index, entries.decode(reader.read(index)), keystore)
        if revealed is not None:
            found[index] = revealed
    return found


def _reveal(reader: EntryReader, index: int, fields: dict[str, Any], keystore: Keystore) -> bodies.Revealed | None:
    """None when there is no body (any more). Raises `KeystoreError` when its keys were destroyed, `LedgerCorrupt`."""
    if not fields.get("body"):
        return None
    key = exchange_key(keystore, fields)
    sealed = reader.body(index, str(fields["class"]), str(fields["bucket"]))
    if sealed is None:
        return None
    exchange = bytes.fromhex(fields["exchange"])
    label = bodies.label(str(fields["type"]))
    return bodies.unseal(bodies.expand(key, label), exchange, label, sealed, fields["commitment"])
