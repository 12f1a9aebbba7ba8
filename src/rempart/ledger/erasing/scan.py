"""`scan`: the exchanges of a person, of a key's owner, of a bucket, or of ids, as their entries name them.

A person's or an owner's are looked for in the whole log: the work grows with it, and with nothing else. Those of a
bucket are where entries have that day; those of ids where each id's time is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Final, Literal

import msgspec

from rempart.errors import LedgerCorrupt
from rempart.ledger.reading.entries import EntryReader, Placed

_DAY: Final = timedelta(days=1)


class Wanted(msgspec.Struct, frozen=True):
    """Which exchanges."""

    scope: Literal["subject", "actor", "exchange", "bucket"]
    names: tuple[str, ...]
    """One pseudonym; ids; or a class and its day."""

    def covers(self, one: Exchanged) -> bool:
        match self.scope:
            case "subject":
                return self.names[0] in one.subjects
            case "actor":
                return self.names[0] == one.actor
            case "exchange":
                return one.exchange in self.names
            case "bucket":
                return (one.retention, one.bucket) == self.names


class Exchanged(msgspec.Struct, kw_only=True):
    """One exchange, as far as its entries say."""

    exchange: str
    actor: str = ""
    subjects: list[str] = []
    retention: str = msgspec.field(default="", name="class")
    """Empty, with all that follows, when it has no body."""
    bucket: str = ""
    seed: str = ""
    leaf: int = 0
    body: str = ""
    bodies: int = 0
    indices: list[int] = []

    @property
    def where(self) -> tuple[str, str]:
        """Class and bucket."""
        return self.retention, self.bucket


Exchanges = dict[str, Exchanged]
"""By id."""
_decoder: Final = msgspec.json.Decoder(Exchanged)


class Scanned(msgspec.Struct, frozen=True):
    """What was found."""

    exchanges: Exchanges
    upto: int
    """Index of the first entry that was not looked at."""


def scan(ledger: Path, wanted: Wanted, first: int = 0) -> Scanned:
    """Look at the entries from index `first` on; `ledger` is `<data>/ledger`. Raises `LedgerCorrupt`. Blocks."""
    reader = EntryReader(ledger)
    found: Exchanges = {}
    for index, entry in _candidates(reader, wanted, first):
        try:
            one = _decoder.decode(entry)
        except msgspec.DecodeError as error:
            raise LedgerCorrupt(f"Entry {index} cannot be read.", hint="Run 'rempart ledger fsck'.") from error
        if wanted.covers(one):
            merge(found, one, index)
    return Scanned(found, reader.count)


def merge(found: Exchanges, one: Exchanged, index: int | None = None) -> None:
    """Add what an entry says, or, without an index, an exchange that has not been written yet."""
    known = found.setdefault(one.exchange, one)
    if known is not one and not known.retention:
        known.retention, known.bucket, known.seed, known.leaf = one.retention, one.bucket, one.seed, one.leaf
    if index is not None:
        known.indices = [*known.indices, index]
        known.bodies += bool(one.body)


def _candidates(reader: EntryReader, wanted: Wanted, first: int) -> Iterator[Placed]:
    """Entries of exchanges that may be wanted: a look at their bytes, before any is decoded."""
    if wanted.scope == "exchange":
        for exchange in wanted.names:
            yield from (placed for placed in reader.of_exchange(exchange) if placed[0] >= first)
        return
    entries: Iterable[Placed] = reader.forward(first)
    needle = f'"{wanted.names[0]}"'.encode()
    if wanted.scope == "bucket":
        day = date.fromisoformat(wanted.names[1])
        needle = f'"bucket":"{day}"'.encode()
        entries = _until(reader.forward(max(first, reader.since(f"{day - _DAY}"))), f"{day + 3 * _DAY}")
    for index, entry in entries:
        if needle in entry and b'"exchange":"' in entry:
            yield index, entry


def _until(entries: Iterable[Placed], time: str) -> Iterator[Placed]:
    """Exchanges end on the next day at the latest, and a clock may be set back by some hours."""
    needle = b'"time":"'
    for index, entry in entries:
        at = entry.rfind(needle) + len(needle)
        if entry[at : at + len(time)].decode("ascii", "replace") >= time:
            return
        yield index, entry
