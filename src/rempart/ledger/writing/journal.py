"""`WorkerJournal.open`: the ledger as the gateway sees it. It writes entries and seals bodies for the sequencer."""

from __future__ import annotations

import os
import secrets
import time
import weakref
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Protocol

import msgspec

from rempart import limits
from rempart.errors import LedgerUnavailable
from rempart.ledger.keys import body as bodies
from rempart.ledger.keys.cache import KeyCache
from rempart.ledger.keys.recalling import RecordKeys
from rempart.ledger.keys.vault import Live, Vault
from rempart.ledger.log import entry as entries
from rempart.ledger.log.checkpoint import Signer
from rempart.ledger.writing.draft import LogState, Receipt, Trace, Traced
from rempart.ledger.writing.sequencer import OpenExchange
from rempart.wire.facts import Fact

_RANDOM_BYTES: Final = bodies.NONCE_BYTES + bodies.SALT_BYTES


class Sequencer(Protocol):
    """The one writer of a log: in this process, or behind its Unix socket."""

    def append(self, entry: bytes, body: bytes = b"", *, opens: str = "", closes: str = "") -> Awaitable[Receipt]: ...

    def piece(self, exchange: bytes, sequence: int, sealed: bytes) -> Awaitable[None] | None: ...

    def check_room(self) -> None: ...

    def state(self) -> LogState: ...

    async def close(self) -> None: ...


class OwnSequencer(Sequencer, Protocol):
    """Its in-process form."""

    def open_exchanges(self) -> Mapping[str, OpenExchange]: ...

    async def sign_with(self, signer: Signer) -> None: ...


class Voice(msgspec.Struct, frozen=True, kw_only=True):
    """Who writes: ids that every entry carries."""

    log: str
    boot: str
    worker: str = "w0"


class WorkerJournal:
    """One per worker."""

    def __init__(
        self, sequencer: Sequencer, keys: KeyCache, voice: Voice, clock: Callable[[], float] = time.time
    ) -> None:
        self._sequencer = sequencer
        self._keys = keys
        self.voice = voice
        self.boot = voice.boot
        """Id of this run, as in its entries."""
        self._clock = clock
        self._common: dict[str, Any] = {
            "v": entries.VERSION,
            "log": voice.log,
            "boot": voice.boot,
            "worker": voice.worker,
        }
        self._recent: OrderedDict[str, Trace] = OrderedDict()
        self._live: weakref.WeakSet[ExchangeRecord] = weakref.WeakSet()

    async def open(
        self, exchange: str, *, actor: str, role: str, key: str, subject: str, people: Sequence[str], retention: str
    ) -> ExchangeRecord:
        """Raises `LedgerUnavailable` when nothing new can be recorded, before any work is done."""
        self._sequencer.check_room()
        day = entries.timestamp(self._clock())[:10]
        keys = await self._keys.keys(retention, day, subject, people)
        fields: dict[str, Any] = {"exchange": exchange, "actor": actor, "role": role, "key": key}
        if keys.subjects:
            fields["subjects"] = list(keys.subjects)
        named = {**fields, **_names(keys, retention)}
        record = ExchangeRecord(self, exchange, named, keys.exchange_key(bytes.fromhex(exchange)))
        self._live.add(record)
        return record

    def live(self) -> list[Live]:
        """Fields and key of each exchange that has begun and may not have its response yet."""
        return [(record._fields, record._key) for record in self._live]

    async def event(self, type: str, facts: Mapping[str, Fact]) -> Receipt:
        """An entry that is no exchange. Raises `ValueError` at facts that may not stand in an entry."""
        entries.check(facts)
        return await self._sequencer.append(self._entry(type, facts))

    async def remark(self, type: str, facts: Mapping[str, Fact], content: bytes, retention: str) -> Receipt:
        """As `event`, with an encrypted body: it has keys of its own, and an id as an exchange has."""
        self._sequencer.check_room()
        entries.check(facts)
        now = self._clock()
        id_ = f"{int(now * 1000):012x}{secrets.token_hex(10)}"
        keys = await self._keys.keys(retention, entries.timestamp(now)[:10], "", ())
        record = ExchangeRecord(
            self, id_, {"exchange": id_, **_names(keys, retention)}, keys.exchange_key(bytes.fromhex(id_))
        )
        return await record.remark(type, facts, content)

    def state(self) -> LogState:
        return self._sequencer.state()

    def recent(self, exchange: str) -> Trace | None:
        return self._recent.get(exchange)

    async def close(self) -> None:
        await self._sequencer.close()

    def _entry(self, type: str, fields: Mapping[str, Any]) -> bytes:
        return entries.encode({**self._common, "type": type, "time": entries.timestamp(self._clock()), **fields})

    def _trace(self, exchange: str, key: str, type: str, receipt: Receipt) -> None:
        known = self._recent.pop(exchange, None)
        traced = Traced(receipt.index, type, receipt.leaf_hash)
        self._recent[exchange] = Trace(key, (*known.entries, traced) if known else (traced,))
        if len(self._recent) > limits.recent_exchanges_max:
            self._recent.popitem(last=False)


class Journal(WorkerJournal):
    """That of the process which has the keystore: one per site."""

    def __init__(
        self, sequencer: OwnSequencer, vault: Vault, voice: Voice, clock: Callable[[], float] = time.time
    ) -> None:
        super().__init__(sequencer, vault, voice, clock)
        self.sequencer = sequencer
        self.vault = vault

    def live(self) -> list[Live]:
        """Those of other workers are known while the vault is paused."""
        return [*super().live(), *self.vault.elsewhere]

    def reopen(self, fields: Mapping[str, Any], key: bytes) -> ExchangeRecord:
        """The record of an exchange whose request is in the log: `fields` are its entry's, `key` is the exchange's."""
        kept = {name: fields[name] for name in _KEPT if name in fields}
        return ExchangeRecord(self, str(fields["exchange"]), kept, key)

    async def close_unreadable(self, fields: Mapping[str, Fact]) -> Receipt:
        """The response of an exchange whose keys were destroyed: no body."""
        return await self._sequencer.append(self._entry("response", fields), closes=str(fields["exchange"]))

    async def close(self) -> None:
        await super().close()
        self.vault.close()


_KEPT: Final = (
    *("exchange", "actor", "role", "key", "subjects", "operation", "model", "model_digest", "engine"),
    *("class", "bucket", "seed", "leaf"),
)


_KEPT_OF_RESPONSE: Final = (
    *("operation", "model", "model_digest", "engine", "request"),
    *("tokens_prompt", "tokens_completion", "tokens_source", "attempts", "tried"),
)


class ExchangeRecord:
    """The ledger's side of one exchange: request, pieces, response, in this order."""

    __slots__ = ("__weakref__", "_exchange", "_fields", "_id", "_journal", "_key", "_pieces", "_sequence")

    def __init__(self, journal: WorkerJournal, exchange: str, fields: dict[str, Any], key: bytes) -> None:
        """`key`: what the keys of its bodies are expanded from."""
        self._journal = journal
        self._exchange = exchange
        self._id = bytes.fromhex(exchange)
        self._fields = fields
        self._key = key
        self._pieces: bodies.PieceCipher | None = None
        self._sequence = 0

    async def request(self, facts: Mapping[str, Fact], body: bytes) -> Receipt:
        """Durable when it returns. Raises `LedgerUnavailable`."""
        sealed = self._seal(bodies.REQUEST, body)
        entry = self._entry("request", facts, sealed)
        receipt = await self._journal._sequencer.append(entry, sealed.body, opens=self._exchange)
        self._journal._trace(self._exchange, self._fields["key"], "request", receipt)
        return receipt

    def piece(self, data: bytes) -> Awaitable[None] | None:
        """Written when it returns None, else when the answer resolves."""
        if self._pieces is None:
            self._pieces = bodies.PieceCipher(bodies.expand(self._key, bodies.PIECES), self._id)
        sequence, self._sequence = self._sequence, self._sequence + 1
        return self._journal._sequencer.piece(self._id, sequence, self._pieces.seal(sequence, data))

    def unseal_pieces(self, pieces: Sequence[bytes]) -> list[bytes]:
        """What was written before a crash."""
        cipher = bodies.PieceCipher(bodies.expand(self._key, bodies.PIECES), self._id)
        return [cipher.unseal(sequence, sealed) for sequence, sealed in enumerate(pieces)]

    async def response(self, facts: Mapping[str, Fact], body: bytes) -> Receipt:
        """Durable when it returns; closes the exchange. Raises `LedgerUnavailable`; then, if there was room for that
        much, the exchange is closed without its body."""
        sealed = self._seal(bodies.RESPONSE, body)
        try:
            entry = self._entry("response", facts, sealed)
            receipt = await self._journal._sequencer.append(entry, sealed.body, closes=self._exchange)
        except LedgerUnavailable:
            await self._close_without_body(facts)
            raise
        self._journal._trace(self._exchange, self._fields["key"], "response", receipt)
        return receipt

    async def remark(self, type: str, facts: Mapping[str, Fact], body: bytes) -> Receipt:
        """An entry of that type with a body, which is no request and no response. Raises `LedgerUnavailable`."""
        sealed = self._seal(bodies.label(type), body)
        return await self._journal._sequencer.append(self._entry(type, facts, sealed), sealed.body)

    async def _close_without_body(self, facts: Mapping[str, Fact]) -> None:
        """Raises `LedgerUnavailable` when even that finds no room."""
        kept = {name: facts[name] for name in _KEPT_OF_RESPONSE if name in facts}
        closed = {**kept, "outcome": "failed", "status": 503, "error": LedgerUnavailable.code}
        entry = self._journal._entry("response", {**self._fields, **closed})
        await self._journal._sequencer.append(entry, closes=self._exchange)

    def _seal(self, label: bytes, content: bytes) -> bodies.Sealed:
        return bodies.seal(bodies.expand(self._key, label), self._id, label, content, os.urandom(_RANDOM_BYTES))

    def _entry(self, type: str, facts: Mapping[str, Fact], sealed: bodies.Sealed) -> bytes:
        """Raises `LedgerUnavailable` when these facts make no entry."""
        body = {"body": sealed.digest, "body_bytes": len(sealed.body), "commitment": sealed.commitment}
        try:
            return self._journal._entry(type, {**self._fields, **facts, **body})
        except ValueError as error:
            raise LedgerUnavailable(f"This cannot be recorded: {error}.", hint="Ask for less at once.") from error


def _names(keys: RecordKeys, retention: str) -> dict[str, Any]:
    return {"class": retention, "bucket": keys.bucket, "seed": keys.seed, "leaf": keys.leaf}


def new_boot() -> str:
    """A random id of this run."""
    return secrets.token_hex(16)
