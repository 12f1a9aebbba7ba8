"""`KeyCache.keys`: record, bucket and subject keys for the exchanges under way, without a question for each exchange.

The source is asked only for what is not known yet: a new seed, a new day, a new person. While keys are destroyed nobody
gets any, and then nothing of before is known any more.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from typing import TypeVar

from rempart import limits
from rempart.ledger.keys.ggm import LEAVES, KeyTree, Node
from rempart.ledger.keys.recalling import RecordKeys
from rempart.ledger.keys.source import KeySource, Person

K = TypeVar("K")
V = TypeVar("V")


class KeyCache:
    """Keys of one worker. A seed is used by one worker in one run, for at most 2^20 exchanges."""

    def __init__(self, source: KeySource) -> None:
        self._source = source
        self._seed = ""
        self._tree: KeyTree | None = None
        self._next_leaf = LEAVES
        self._seeding = asyncio.Lock()
        self._buckets: OrderedDict[tuple[str, str], bytes] = OrderedDict()
        self._people: OrderedDict[str, Person] = OrderedDict()
        self._pseudonyms: OrderedDict[str, bytes] = OrderedDict()
        self._going = asyncio.Event()
        self._going.set()
        self._generation = 0
        """Counts the times that all was forgotten: what was asked for before then is not remembered."""

    def pause(self) -> None:
        """Who asks for the keys of an exchange waits, and nothing is known any more."""
        self._going.clear()
        self._forget()

    def resume(self) -> None:
        """What was learnt meanwhile is forgotten too."""
        self._forget()
        self._going.set()

    async def going(self) -> None:
        """Wait until it is not paused; it is not when this returns."""
        while not self._going.is_set():
            await self._going.wait()

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
            known[found.pseudonym] = found.key
        return bucket_key, known

    async def _new_seed(self) -> None:
        async with self._seeding:
            if self._next_leaf < LEAVES:
                return
            generation = self._generation
            seed = await self._source.new_seed()
            if generation == self._generation:
                self._seed, self._tree, self._next_leaf = seed.id, KeyTree([Node("", seed.key)]), 0

    async def _bucket(self, retention: str, day: str) -> bytes:
        generation = self._generation
        key = await self._source.bucket(retention, day)
        return self._remember(generation, self._buckets, (retention, day), key)

    async def _subject(self, pseudonym: str) -> bytes:
        generation = self._generation
        key = await self._source.subject(pseudonym)
        return self._remember(generation, self._pseudonyms, pseudonym, key)

    async def _person(self, identity: str) -> Person:
        generation = self._generation
        found = await self._source.person(identity)
        return self._remember(generation, self._people, identity, found)

    def _remember(self, generation: int, cache: OrderedDict[K, V], key: K, value: V) -> V:
        if generation == self._generation:
            cache[key] = value
            while len(cache) > limits.subject_cache_max:
                cache.popitem(last=False)
        return value
