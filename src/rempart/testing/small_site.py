"""`SmallSite`: a real ledger with keystore and search index, without gateway and engines, for tests of erasure."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from rempart.config.settings import Keys
from rempart.errors import KeystoreError
from rempart.ledger.erasing.fulfil import finish
from rempart.ledger.erasing.records import Records
from rempart.ledger.keys.configured import open_keystore
from rempart.ledger.keys.keystore import Keystore
from rempart.ledger.keys.retention import RetentionClass
from rempart.ledger.log import entry as entries
from rempart.ledger.log.checkpoint import Verifier
from rempart.ledger.reading.entries import EntryReader
from rempart.ledger.reading.find import Found, find, find_revealed
from rempart.ledger.reading.fsck import Checked, fsck
from rempart.ledger.search.build import Entry, build
from rempart.ledger.search.index import Index
from rempart.ledger.search.query import parse
from rempart.ledger.search.texts import texts
from rempart.ledger.writing.journal import ExchangeRecord, Journal
from rempart.ledger.writing.opening import open_ledger, read_vkey
from rempart.ledger.writing.retire import retire

DAY_S: Final = 86_400.0
NOON_S: Final = 1_795_435_200.0  # 2026-11-23T12:00:00Z
CLASSES: Final = {
    "standard": RetentionClass(name="standard", days=365, basis="a year"),
    "short": RetentionClass(name="short", days=2, basis="GDPR art. 5(1)(e)"),
    "own": RetentionClass(name="own", days=365, basis="a year", erase_with_actor=True),
    "worm": RetentionClass(name="worm", days=10, basis="17 CFR 240.17a-4", worm=True),
}


class SmallSite:
    """`path` is a data directory; its clock stands still unless it is set."""

    def __init__(self, path: Path, now: float = NOON_S, keys: Keys | None = None) -> None:
        """`keys`: how the keystore is kept."""
        self.path = path
        self.keys = keys
        self.now = now
        self.revoked: list[str] = []
        self._journal: Journal | None = None
        self._records: Records | None = None

    @property
    def ledger(self) -> Path:
        return self.path / "ledger"

    @property
    def journal(self) -> Journal:
        assert self._journal is not None
        return self._journal

    @property
    def records(self) -> Records:
        assert self._records is not None
        return self._records

    @contextlib.asynccontextmanager
    async def run(self) -> AsyncIterator[SmallSite]:
        """One run of a server: recovers, finishes what is pending, and is closed at the end."""
        opened = open_keystore(self.path, self.keys)
        try:
            self._journal = await open_ledger(
                self.path, opened, origin="", strict=False, clock=lambda: self.now, take_apart=retire
            )
        except BaseException:
            opened.close()
            raise
        try:
            self._records = Records(self.ledger, self.journal, CLASSES, revoke=self._revoke, clock=lambda: self.now)
            await finish(self.records)
            yield self
        finally:
            await self.journal.close()

    async def _revoke(self, pseudonym: str) -> int:
        self.revoked.append(pseudonym)
        return 0

    async def exchange(self, said: str, *people: str, actor: str = "a_" + "0" * 32, retention: str = "standard") -> str:
        """What was asked and answered holds `said`; the exchange's id."""
        id_, record = await self.begin(said, *people, actor=actor, retention=retention)
        await self.answer(record, said)
        return id_

    async def begin(
        self, said: str, *people: str, actor: str = "a_" + "0" * 32, retention: str = "standard"
    ) -> tuple[str, ExchangeRecord]:
        """A request is recorded, and its answer is still to come."""
        id_ = f"{int(self.now * 1000):012x}{os.urandom(10).hex()}"
        record = await self.journal.open(
            id_, actor=actor, role="user", key="k", subject="", people=people, retention=retention
        )
        content = {"request": {"messages": [{"role": "user", "content": said}]}}
        await record.request(_FACTS, msgspec.json.encode(content))
        return id_, record

    async def answer(self, record: ExchangeRecord, said: str) -> None:
        content = {"response": {"choices": [{"message": {"role": "assistant", "content": f"answer to {said}"}}]}}
        await record.response({**_FACTS, "outcome": "ok", "status": 200}, msgspec.json.encode(content))

    async def pseudonym(self, prefix: str, identity: str) -> str:
        name, _ = await self.records.ask(lambda keystore: keystore.pseudonym(prefix, identity))
        return name

    def find(self, exchange: str) -> list[Found]:
        with _opened(self) as keystore:
            return find(self.ledger, exchange, keystore)

    def readable(self, exchange: str) -> bool:
        """All of its bodies, or none: else the test fails."""
        found = [one for one in self.find(exchange) if "body" in one.entry]
        readable = {one.body is not None for one in found}
        assert len(readable) == 1, found
        return readable.pop()

    def entries(self, type_: str) -> list[dict[str, Any]]:
        """Fields of all entries of a type, oldest first."""
        found = [entries.decode(entry) for _, entry in EntryReader(self.ledger).forward(0)]
        return [fields for fields in found if fields["type"] == type_]

    def check(self) -> Checked:
        """`fsck` finds nothing."""
        checked = fsck(self.ledger, Verifier.from_vkey(read_vkey(self.path)))
        assert checked.holds, checked.faults
        return checked

    def index(self) -> None:
        """Bring the search index up to the end of the log."""
        with _opened(self) as keystore:

            def key(retention: str, bucket: str) -> bytes | None:
                return keystore.get("bucket", f"{retention}/{bucket}")

            build(self.ledger / "index", key, lambda first: self._follow(keystore, first))

    def found(self, word: str) -> list[int]:
        """Indices of the entries that the index has for a word."""
        with _opened(self) as keystore:

            def key(retention: str, bucket: str) -> bytes | None:
                return keystore.get("bucket", f"{retention}/{bucket}")

            index = Index(self.ledger / "index", key)
            return sorted(index.search(parse(word), limit=1_000, texts=lambda _: None).entries)

    def _follow(self, keystore: Keystore, first: int) -> Iterator[Entry]:
        for index, entry in EntryReader(self.ledger).forward(first):
            fields: Mapping[str, Any] = entries.decode(entry)
            yield index, fields, self._texts(keystore, index, fields)

    def _texts(self, keystore: Keystore, index: int, fields: Mapping[str, Any]) -> list[str]:
        if "body" not in fields:
            return []
        try:
            revealed = find_revealed(self.ledger, [index], keystore)
        except KeystoreError:
            return []
        return texts(msgspec.json.decode(revealed[index].content)) if index in revealed else []


_FACTS: Final = {"operation": "chat", "model": "m", "model_digest": "", "engine": "e"}


@contextlib.contextmanager
def _opened(site: SmallSite) -> Iterator[Keystore]:
    keystore = open_keystore(site.path, site.keys)
    try:
        yield keystore
    finally:
        keystore.close()


async def crowd(site: SmallSite, count: int) -> list[str]:
    """That many exchanges, each about a person of its own."""
    return list(await asyncio.gather(*(site.exchange(f"word{n}", f"person {n}") for n in range(count))))
