"""`Vault`: record, bucket and subject keys for the exchanges under way, without a database write per exchange.

The keystore is asked in a thread of its own and only for what is not known yet: a new seed, a new day, a new person.
While keys are destroyed nobody gets any (`paused`), and then nothing of before is known any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from rempart import limits
from rempart.errors import KeystoreError, LedgerUnavailable
from rempart.ledger.keys.ggm import LEAVES, KeyTree, Node
from rempart.ledger.keys.keystore import Keystore
from rempart.ledger.keys.recalling import RecordKeys, encode_nodes

T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")


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
        self._going = asyncio.Event()
        self._going.set()
        self._generation = 0
        """Counts the times that all was forgotten: what was asked for before then is not remembered."""

    async def ask(self, question: Callable[[Keystore], T]) -> T:
        """Run in the keystore's thread. Raises `LedgerUnavailable` when the keystore fails."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, question, self._keystore)
        except KeystoreError as error:
            raise LedgerUnavailable(error.message, hint=error.hint) from error

    def close(self) -> None:
        self._thread.shutdown()
        self._keystore.close()

    @contextlib.asynccontextmanager
    async def paused(self) -> AsyncIterator[None]:
        """Who asks for the keys of an exchange waits; at the end all that is kept in memory is dropped.

        Exchanges that have their keys go on with them: each holds the one key that its bodies' keys come from, until
        its response is written. Whoever pauses has the erasure lock.
        """
        self._going.clear()
        try:
            yield
        finally:
            self._forget()
            self._going.set()

    def _forget(self) -> None:
        """The tree of the seed too: a seed whose row lost a leaf is not used on."""
        self._generation += 1
        self._buckets.clear()
        self._people.clear()
        self._pseudonyms.clear()
        self._seed, self._tree, self._next_leaf = "", None, LEAVES

    async def keys(self, retention: str, day: str, subject: str, people: Sequence[str]) -> RecordKeys:
        """Fresh keys for one exchange. `subject` is a pseudonym or empty; `people` are identities in clear.

        When it returns, its keys exist: nothing was destroyed since they were asked for.
        """
        while True:
            await self._going.wait()
            generation = self._generation
            bucket_key, known = await self._known(retention, day, subject, people)
            while self._next_leaf >= LEAVES and generation == self._generation:
                await self._new_seed()
            if generation == self._generation and self._going.is_set():
                break
        # Nothing is awaited between that and the taking of the leaf.
        assert self._tree is not None
        leaf, self._next_leaf = self._next_leaf, self._next_leaf + 1
        names = tuple(sorted(known))
        return RecordKeys(
            self._seed, leaf, self._tree.leaf(leaf), day, bucket_key, names, tuple(known[name] for name in names)
        )

    async def _known(
        self, retention: str, day: str, subject: str, people: Sequence[str]
    ) -> tuple[bytes, dict[str, bytes]]:
        """The bucket's key, and the subjects' by pseudonym."""
        bucket_key = self._buckets.get((retention, day)) or await self._bucket(retention, day)
        known: dict[str, bytes] = {}
        if subject:
            known[subject] = self._pseudonyms.get(subject) or await self._subject(subject)
        for identity in people:
            found = self._people.get(identity) or await self._person(identity)
            known[found[0]] = found[1]
        return bucket_key, known

    async def _new_seed(self) -> None:
        async with self._seeding:
            if self._next_leaf < LEAVES:
                return
            id_, seed, generation = secrets.token_hex(16), secrets.token_bytes(32), self._generation
            await self.ask(lambda keystore: keystore.put({("seed", id_): encode_nodes([Node("", seed)])}))
            if generation == self._generation:
                self._seed, self._tree, self._next_leaf = id_, KeyTree([Node("", seed)]), 0

    async def _bucket(self, retention: str, day: str) -> bytes:
        generation = self._generation
        key = await self.ask(lambda keystore: keystore.bucket(retention, day))
        return self._remember(generation, self._buckets, (retention, day), key)

    async def _subject(self, pseudonym: str) -> bytes:
        generation = self._generation
        key = await self.ask(lambda keystore: keystore.subject_key(pseudonym))
        return self._remember(generation, self._pseudonyms, pseudonym, key)

    async def _person(self, identity: str) -> tuple[str, bytes]:
        generation = self._generation
        found = await self.ask(lambda keystore: keystore.pseudonym("s", identity))
        return self._remember(generation, self._people, identity, found)

    def _remember(self, generation: int, cache: OrderedDict[K, V], key: K, value: V) -> V:
        if generation == self._generation:
            cache[key] = value
            while len(cache) > limits.subject_cache_max:
                cache.popitem(last=False)
        return value
