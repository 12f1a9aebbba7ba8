"""`Vault`: record, bucket and subject keys for the exchanges under way, without a database write per exchange.

The keystore is asked in a thread of its own and only for what is not known yet: a new seed, a new day, a new person.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import msgspec

from rempart import limits
from rempart.errors import KeystoreError, LedgerUnavailable
from rempart.ledger.keys.body import extract
from rempart.ledger.keys.ggm import LEAVES, KeyTree, Node
from rempart.ledger.keys.keystore import Keystore

T = TypeVar("T")
_nodes = msgspec.json.Decoder(list[tuple[str, str]])


class RecordKeys(msgspec.Struct, frozen=True):
    """The keys of one exchange, and how its entries name them."""

    seed: str
    leaf: int
    record_key: bytes
    bucket: str
    """UTC day."""
    bucket_key: bytes
    subjects: tuple[str, ...]
    """Pseudonyms, sorted."""
    subject_keys: tuple[bytes, ...]
    """In the same order."""

    def exchange_key(self, exchange: bytes) -> bytes:
        """What the keys of the exchange's bodies are expanded from; `exchange` is the id's 16 bytes."""
        return extract(exchange, self.record_key, self.bucket_key, self.subject_keys)


class Vault:
    """Keys of one worker. A seed is used by one worker in one run, for at most 2^20 exchanges."""

    def __init__(self, keystore: Keystore) -> None:
        self._keystore = keystore
        self._thread = ThreadPoolExecutor(1, "keystore")
        self._seed = ""
        self._tree: KeyTree | None = None
        self._next_leaf = LEAVES
        self._seeding = asyncio.Lock()
        self._buckets: OrderedDict[tuple[str, str], bytes] = OrderedDict()
        self._people: OrderedDict[str, tuple[str, bytes]] = OrderedDict()
        self._pseudonyms: OrderedDict[str, bytes] = OrderedDict()

    async def ask(self, question: Callable[[Keystore], T]) -> T:
        """Run in the keystore's thread. Raises `LedgerUnavailable` when the keystore fails."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, question, self._keystore)
        except KeystoreError as error:
            raise LedgerUnavailable(error.message, hint=error.hint) from error

    def close(self) -> None:
        self._thread.shutdown()
        self._keystore.close()

    async def keys(self, retention: str, day: str, subject: str, people: Sequence[str]) -> RecordKeys:
        """Fresh keys for one exchange. `subject` is a pseudonym or empty; `people` are identities in clear."""
        bucket_key = self._buckets.get((retention, day)) or await self._bucket(retention, day)
        known: dict[str, bytes] = {}
        if subject:
            known[subject] = self._pseudonyms.get(subject) or await self._subject(subject)
        for identity in people:
            found = self._people.get(identity) or await self._person(identity)
            known[found[0]] = found[1]
        while self._next_leaf >= LEAVES:  # last: nothing is awaited between this and the taking of the leaf
            await self._new_seed()
        assert self._tree is not None
        leaf, self._next_leaf = self._next_leaf, self._next_leaf + 1
        names = tuple(sorted(known))
        return RecordKeys(
            self._seed, leaf, self._tree.leaf(leaf), day, bucket_key, names, tuple(known[name] for name in names)
        )

    async def _new_seed(self) -> None:
        async with self._seeding:
            if self._next_leaf < LEAVES:
                return
            id_, seed = secrets.token_hex(16), secrets.token_bytes(32)
            await self.ask(lambda keystore: keystore.put({("seed", id_): encode_nodes([Node("", seed)])}))
            self._seed, self._tree, self._next_leaf = id_, KeyTree([Node("", seed)]), 0

    async def _bucket(self, retention: str, day: str) -> bytes:
        key = await self.ask(lambda keystore: keystore.bucket(retention, day))
        return _remember(self._buckets, (retention, day), key)

    async def _subject(self, pseudonym: str) -> bytes:
        key = await self.ask(lambda keystore: keystore.subject_key(pseudonym))
        return _remember(self._pseudonyms, pseudonym, key)

    async def _person(self, identity: str) -> tuple[str, bytes]:
        found = await self.ask(lambda keystore: keystore.pseudonym("s", identity))
        return _remember(self._people, identity, found)


K = TypeVar("K")
V = TypeVar("V")


def _remember(cache: OrderedDict[K, V], key: K, value: V) -> V:
    cache[key] = value
    while len(cache) > limits.subject_cache_max:
        cache.popitem(last=False)
    return value


def encode_nodes(nodes: Sequence[Node]) -> bytes:
    """The row of a seed."""
    return msgspec.json.encode([(node.prefix, node.key.hex()) for node in nodes])


def decode_nodes(row: bytes) -> list[Node]:
    return [Node(prefix, bytes.fromhex(key)) for prefix, key in _nodes.decode(row)]


def recall(keystore: Keystore, entry: dict[str, object]) -> RecordKeys:
    """The keys of an exchange from the fields of one of its entries. Raises `KeystoreError` when one was destroyed."""
    seed, leaf = str(entry["seed"]), int(str(entry["leaf"]))
    row = keystore.get("seed", seed)
    if row is None:
        raise KeystoreError(f"The seed {seed} was destroyed, or is of another keystore.")
    retention, bucket = str(entry["class"]), str(entry["bucket"])
    bucket_key = keystore.get("bucket", f"{retention}/{bucket}")
    if bucket_key is None:
        raise KeystoreError(f"The key of {retention}/{bucket} was destroyed: its time is over.")
    named = entry.get("subjects") or []
    assert isinstance(named, list)
    names = tuple(str(name) for name in named)
    keys = tuple(keystore.subject_key(name) for name in names)
    return RecordKeys(seed, leaf, KeyTree(decode_nodes(row)).leaf(leaf), bucket, bucket_key, names, keys)
