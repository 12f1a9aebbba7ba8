"""`Archive`: a ledger is searched and looked up by those who may read it; it shows, and does not record who asked.

Only what a checkpoint covers: all of it can be proved.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final

import msgspec

from rempart import limits
from rempart.errors import InvalidRequest, KeystoreError, NotFound
from rempart.ledger.keys.keystore import Keystore
from rempart.ledger.log import entry as entries
from rempart.ledger.reading.entries import EntryReader
from rempart.ledger.reading.find import Found
from rempart.ledger.reading.said import Said
from rempart.ledger.search.following import index_directory, key_of
from rempart.ledger.search.index import Index, Results
from rempart.ledger.search.query import Query, parse
from rempart.ledger.search.snippet import snippet

_SHOWN: Final = ("time", "exchange", "model", "outcome", "actor", "role", "key")


class Hit(msgspec.Struct, frozen=True, kw_only=True):
    """One exchange, or one record of a read."""

    index: int
    """Of its response, or of the record."""
    type: str
    time: str
    exchange: str
    model: str
    outcome: str
    actor: str
    role: str
    key: str
    request: int | None = None
    """Index of its request."""
    identity: str = ""
    """Who `actor` is; only where bodies may be shown."""
    snippet: str = ""
    """Where the words stand; only where bodies may be shown."""


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """What a search found, the newest first."""

    results: tuple[Hit, ...]
    next: int | None
    """Ask again below this index for more; None: this was all."""
    behind: int
    """Exchanges under the checkpoint that are not in the index yet; of a long rest all its entries are counted."""
    destroyed: int
    missing: int
    unreadable: int
    """See `Results`."""


class Archive:
    """`ledger` is `<data>/ledger`. Not for several threads."""

    def __init__(self, ledger: Path, keystore: Keystore) -> None:
        self._ledger = ledger
        self._keystore = keystore
        self._said = Said(ledger, keystore)
        self._index = Index(index_directory(ledger), key_of(keystore))

    def search(self, text: str, *, limit: int, below: int | None = None, disclosed: bool = False) -> Page:
        """`disclosed`: with snippets and identities. Raises `InvalidRequest`, `IndexDamaged`, `LedgerCorrupt`."""
        query = self._by_pseudonym(parse(text))
        self._said.let_go()
        reader = EntryReader(self._ledger, beyond=False)
        found = self._index.search(
            query, limit=limit, texts=lambda index: self._said.texts(reader, index), below=_below(below, reader)
        )
        return self._page(reader, query, found, disclosed)

    def exchange(self, exchange: str, *, disclosed: bool = False) -> list[Found]:
        """Its entries; `disclosed`: with what was said. Raises `NotFound` when no checkpoint covers one."""
        self._said.let_go()
        reader = EntryReader(self._ledger, beyond=False)
        placed = reader.of_exchange(exchange)
        if not placed:
            raise NotFound(
                "The ledger has no exchange of that id.", hint="A new one is covered by a checkpoint within a second."
            )
        found = [(index, entries.decode(entry)) for index, entry in placed]
        return [self._opened(index, fields) if disclosed else _sealed(index, fields) for index, fields in found]

    def identity(self, actor: str) -> str:
        """Who that is; empty when it is nobody any more, or was nobody ever."""
        try:
            return self._keystore.identity(actor)
        except KeystoreError:
            self._keystore.get("subject", actor)  # what fails, fails here again
            return ""

    def close(self) -> None:
        self._said.close()
        self._keystore.close()

    def _by_pseudonym(self, query: Query) -> Query:
        """The index knows nobody's name. Raises `InvalidRequest` for a name that nobody has."""
        fields = tuple(
            (field, tuple(map(self._pseudonym, values)) if field == "actor" else values)
            for field, values in query.fields
        )
        return msgspec.structs.replace(query, fields=fields)

    def _pseudonym(self, actor: str) -> str:
        if actor.startswith("a_"):
            return actor
        known = self._keystore.get(*self._keystore.lookup("a", actor))
        if known is None:
            raise InvalidRequest(
                f"No key's owner is known as '{actor}' here, or no longer.",
                hint="Give the name as it was given to --owner, or a pseudonym (a_…).",
                param="query",
            )
        return known.decode()

    def _page(self, reader: EntryReader, query: Query, found: Results, disclosed: bool) -> Page:
        return Page(
            results=tuple(self._hit(reader, query, index, disclosed) for index in found.entries),
            next=found.next,
            behind=_behind(reader, found.mark),
            destroyed=found.destroyed,
            missing=found.missing,
            unreadable=found.unreadable,
        )

    def _hit(self, reader: EntryReader, query: Query, index: int, disclosed: bool) -> Hit:
        fields = entries.decode(reader.read(index))
        shown = {name: str(fields.get(name, "")) for name in _SHOWN}
        texts: Sequence[str] = (self._said.texts(reader, index) or ()) if disclosed else ()
        return Hit(
            index=index,
            type=str(fields["type"]),
            request=fields.get("request"),
            identity=self.identity(shown["actor"]) if disclosed else "",
            snippet=snippet(texts, query, limits.snippet_chars),
            **shown,
        )

    def _opened(self, index: int, fields: dict[str, Any]) -> Found:
        body = self._said.content(index, fields)
        gone = "" if body is not None or not fields.get("body") else "it was erased, or is damaged."
        return Found(index=index, entry=fields, body=body, unreadable=gone)


def _sealed(index: int, fields: dict[str, Any]) -> Found:
    return Found(index=index, entry=fields)


def _behind(reader: EntryReader, mark: int) -> int:
    """The record of each search is an entry: a mere count of entries would never be 0."""
    looked = min(mark + limits.behind_looked_max, reader.count)
    rest = islice(reader.forward(mark), max(looked - mark, 0))
    return sum(entries.facts(entry).type == "response" for _, entry in rest) + max(reader.count - looked, 0)


def _below(below: int | None, reader: EntryReader) -> int:
    """An index that was put back with its log may know more than the checkpoint covers."""
    return reader.count if below is None else min(below, reader.count)
