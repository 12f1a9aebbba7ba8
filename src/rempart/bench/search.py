"""`python -m rempart.bench.search`: the search index on a synthetic corpus; figures are printed and never asserted.

Each entry has 50 words drawn by Zipf's law; which words follows from the entry's index, so that a phrase is confirmed
by making the entry's text again. Entries are spread evenly over the days; every fourth is a refusal. Making the corpus
is measured and taken off the time of the build. Build and queries run in one process, on one core.
"""

from __future__ import annotations

import gc
import random
import resource
import tempfile
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, timedelta
from hashlib import sha256
from itertools import accumulate
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from rempart.bench.stats import percentile
from rempart.ledger.search.build import build
from rempart.ledger.search.index import Index
from rempart.ledger.search.query import parse

_WORDS: Final = 50
_FIRST_DAY: Final = date(2026, 1, 1)
_LIMIT: Final = 20


class Corpus:
    """Entries of the log that never was."""

    def __init__(self, entries: int, days: int, vocabulary: int) -> None:
        self.entries = entries
        self.days = days
        self.seconds = 0.0
        """Spent on making it."""
        self.words = [f"w{rank:x}" for rank in range(vocabulary)]
        self._weights = list(accumulate(1 / (rank + 1) for rank in range(vocabulary)))

    def text(self, index: int) -> str:
        draw = random.Random(index)
        return " ".join(draw.choices(self.words, cum_weights=self._weights, k=_WORDS))

    def rank(self, share: float) -> int:
        """The rank of the word below which this share of all that is said lies."""
        return bisect_left(self._weights, share * self._weights[-1])

    def fields(self, index: int) -> Mapping[str, Any]:
        day = _FIRST_DAY + timedelta(days=index * self.days // self.entries)
        hour = index * self.days * 24 // self.entries % 24
        outcome = "refused" if index % 4 == 3 else "ok"
        return {
            **{"class": "standard", "bucket": f"{day}", "time": f"{day}T{hour:02d}:00:00.000000Z"},
            **{"actor": f"a_{index % 997:032x}", "model": f"model-{index % 3}", "outcome": outcome},
        }

    def follow(self, first: int) -> Iterator[tuple[int, Mapping[str, Any], Sequence[str]]]:
        for index in range(first, self.entries):
            began = time.perf_counter()
            made = index, self.fields(index), (self.text(index),)
            self.seconds += time.perf_counter() - began
            yield made


class Figure(msgspec.Struct, frozen=True):
    """One kind of query."""

    kind: str
    queries: int
    found: float
    """Entries a query, on average; the limit is 20."""
    stopped: int
    """Queries that stopped with the limit of candidates for a phrase, before that of entries."""
    p50_ms: float
    p95_ms: float


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What one run measured."""

    entries: int
    days: int
    build_s: float
    corpus_s: float
    bytes: int
    memory_built_bytes: int
    """Most memory of the process after the build, and after the queries: the second tells what reading adds."""
    memory_read_bytes: int
    queries: tuple[Figure, ...]


def measure(corpus: Corpus, root: Path, rounds: int, say: Callable[[str], None]) -> Figures:
    """Build in `root`, then `rounds` queries of each kind."""
    began = time.perf_counter()

    def progress(index: int) -> None:
        if index % (1 << 16) == 0:
            net = time.perf_counter() - began - corpus.seconds
            say(f"{index} entries, {index / max(net, 1e-9):.0f} a second")

    gc.disable()
    try:
        build(root, _key, corpus.follow, progress=progress)
    finally:
        gc.enable()
    build_s = time.perf_counter() - began - corpus.seconds
    built = _memory_bytes()
    queries = _queries(corpus, Index(root, _key), rounds)
    return Figures(
        entries=corpus.entries,
        days=corpus.days,
        build_s=build_s,
        corpus_s=corpus.seconds,
        bytes=sum(path.stat().st_size for path in root.rglob("*") if path.is_file()),
        memory_built_bytes=built,
        memory_read_bytes=_memory_bytes(),
        queries=queries,
    )


def _queries(corpus: Corpus, index: Index, rounds: int) -> tuple[Figure, ...]:
    draw = random.Random(0)

    def common() -> str:
        return corpus.words[draw.randrange(0, 100)]

    def middle() -> str:
        return corpus.words[draw.randrange(corpus.rank(0.5), corpus.rank(0.8))]

    def rare() -> str:
        return corpus.words[draw.randrange(corpus.rank(0.95), len(corpus.words))]

    def phrase() -> str:
        said = corpus.text(draw.randrange(corpus.entries)).split()
        place = draw.randrange(_WORDS - 3)
        return f'"{" ".join(said[place : place + 3])}"'

    def day() -> str:
        return f"{_FIRST_DAY + timedelta(days=draw.randrange(corpus.days))}"

    kinds: dict[str, Callable[[], str]] = {
        "rare word": rare,
        "middling word": middle,
        "common word": common,
        "word that is not there": lambda: f"x{draw.randrange(10**9)}",
        "two words": lambda: f"{common()} {middle()}",
        "two middling words": lambda: f"{middle()} {middle()}",
        "word and field": lambda: f"{middle()} outcome:refused",
        "word and actor": lambda: f"{common()} actor:a_{draw.randrange(997):032x}",
        "word since a day": lambda: f"{middle()} after:{day()}",
        "phrase of three": phrase,
    }
    every: list[tuple[float, int, bool]] = []
    figures = []
    for kind, make in kinds.items():
        timed = [_ask(corpus, index, make()) for _ in range(rounds)]
        every += timed
        figures.append(_figure(kind, timed))
    return (*figures, _figure("all of these", every))


def _ask(corpus: Corpus, index: Index, text: str) -> tuple[float, int, bool]:
    """Seconds, entries, whether it stopped with fewer than the limit."""
    began = time.perf_counter()
    results = index.search(parse(text), limit=_LIMIT, texts=lambda number: (corpus.text(number),))
    seconds, count = time.perf_counter() - began, len(results.entries)
    return seconds, count, results.next is not None and count < _LIMIT


def _figure(kind: str, timed: Sequence[tuple[float, int, bool]]) -> Figure:
    seconds = [one for one, _, _ in timed]
    found = sum(count for _, count, _ in timed) / len(timed)
    stopped = sum(stopped for _, _, stopped in timed)
    return Figure(kind, len(timed), found, stopped, percentile(seconds, 0.5) * 1e3, percentile(seconds, 0.95) * 1e3)


def _key(retention: str, bucket: str) -> bytes:
    return sha256(f"{retention}/{bucket}".encode()).digest()


def _memory_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@click.command()
@click.option("--entries", type=click.IntRange(min=1), default=200_000, show_default=True, help="Entries of the log.")
@click.option("--days", type=click.IntRange(min=1), default=30, show_default=True, help="Days they are spread over.")
@click.option(
    "--vocabulary", type=click.IntRange(min=1000), default=200_000, show_default=True, help="Different words."
)
@click.option("--rounds", type=click.IntRange(min=1), default=50, show_default=True, help="Queries of each kind.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def main(entries: int, days: int, vocabulary: int, rounds: int, as_json: bool) -> None:
    """Measure the search index: 10,000,000 entries take about ten minutes and 3 GB of disk."""
    with tempfile.TemporaryDirectory(prefix="rempart-search-") as name:
        found = measure(Corpus(entries, days, vocabulary), Path(name), rounds, lambda text: click.echo(text, err=True))
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found)).decode())
        return
    click.echo(f"{found.entries} entries of {_WORDS} words over {found.days} days")
    click.echo(f"build   {found.build_s:.1f} s, {found.entries / found.build_s:.0f} entries/s, beside the corpus")
    click.echo(f"index   {found.bytes} bytes, {found.bytes / found.entries:.0f} an entry")
    click.echo(
        f"memory  {found.memory_built_bytes >> 20} MiB after the build, {found.memory_read_bytes >> 20} MiB at the end"
    )
    click.echo(f"{'query':<24}{'found':>7}{'stopped':>9}{'p50':>12}{'p95':>12}")
    for one in found.queries:
        click.echo(f"{one.kind:<24}{one.found:>7.1f}{one.stopped:>9}{one.p50_ms:>9.1f} ms{one.p95_ms:>9.1f} ms")


if __name__ == "__main__":
    main()
