"""`rempart.ledger.search`: whatever is written, merged, erased, damaged and rebuilt in whatever order, a search finds
what a naive scan finds."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from rempart import limits
from rempart.ledger.search.writer import IndexWriter
from rempart.testing.search import Log, fields, key, mentioned, run_files

WORDS = st.sampled_from(["alpha", "beta", "gamma", "delta", "épsilon", "zeta"])
TEXTS = st.lists(st.lists(WORDS, max_size=6).map(" ".join), max_size=2)
FACTS = st.fixed_dictionaries(
    {
        "day": st.integers(1, 3),
        "hour": st.sampled_from([0, 11, 23]),
        "actor": st.sampled_from(["a_1", "a_2"]),
        "outcome": st.sampled_from(["ok", "refused"]),
        "class": st.sampled_from(["standard", "long"]),
    }
)
PARTS = st.one_of(
    WORDS,
    st.lists(WORDS, min_size=2, max_size=3).map(lambda words: f'"{" ".join(words)}"'),
    st.sampled_from(["actor:a_1", "actor:a_2", "outcome:ok", "class:long", "class:standard"]),
)
TIMES = st.sampled_from(["", "after:2026-11-02", "before:2026-11-02T11", "after:2026-11-01T11 before:2026-11-03"])
QUERIES = st.tuples(st.lists(PARTS, max_size=4), TIMES).map(lambda parts: " ".join([*parts[0], parts[1]]).strip())


@contextmanager
def little_memory() -> Iterator[None]:
    """So little that an entry or two fill it."""
    before = limits.index_memory_bytes
    limits.index_memory_bytes = 3000  # type: ignore[misc]
    try:
        yield
    finally:
        limits.index_memory_bytes = before  # type: ignore[misc]


class Searches(RuleBasedStateMachine):
    """An index and the log that it follows."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="search-"))
        self.log = Log([])
        self.next = 65_530  # a window ends soon

    def teardown(self) -> None:
        shutil.rmtree(self.directory)

    @rule(entries=st.lists(st.tuples(FACTS, TEXTS), min_size=1, max_size=8), gap=st.integers(0, 3), tight=st.booleans())
    def follow(self, entries: list[tuple[dict[str, Any], list[str]]], gap: int, tight: bool) -> None:
        self.next += gap
        for facts, texts in entries:
            self.log.entries[self.next] = (fields(**facts), texts)
            self.next += 1
        if tight:
            with little_memory():
                self.log.build(self.directory)
        else:
            self.log.build(self.directory)

    @rule(data=st.data())
    def erase(self, data: st.DataObject) -> None:
        known = sorted(self.log.entries)
        chosen = data.draw(st.sets(st.sampled_from(known), max_size=4)) if known else set()
        self.log.erased |= chosen
        with IndexWriter(self.directory, key) as writer:
            writer.erase(chosen)

    @rule(seed=st.integers(0, 1000))
    def damage_and_rebuild(self, seed: int) -> None:
        files = run_files(self.directory)
        if files:
            draw = random.Random(seed)
            path = draw.choice(files)
            data = bytearray(path.read_bytes())
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
            path.write_bytes(data)
        self.log.build(self.directory, check=True)

    @rule(text=QUERIES.filter(bool))
    def search(self, text: str) -> None:
        found = self.log.search(self.directory, text)
        assert found.entries == self.log.scan(text)
        assert found.next is None
        pages, below = list[int](), None
        while True:
            page = self.log.search(self.directory, text, limit=2, below=below)
            pages += page.entries
            if (below := page.next) is None:
                break
        assert tuple(pages) == found.entries

    @invariant()
    def nothing_is_said_of_what_was_erased(self) -> None:
        assert mentioned(self.directory) == set(self.log.entries) - self.log.erased


TestSearches = Searches.TestCase
TestSearches.settings = settings(
    max_examples=25, stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck)
)
