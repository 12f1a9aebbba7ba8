"""`python -m rempart.bench.search`: the search index on a synthetic corpus; figures are printed and never asserted.

Each entry has 50 words drawn by Zipf's law; which words follows from the entry's index, so that a phrase is confirmed
by making the entry's text again. Entries are spread evenly over the days; every fourth is a refusal. Making the corpus
is measured and taken off the time of the build. Build and queries run in one process, on one core; an index that was
kept is asked again and not built, so that a busy machine can build and a quiet one ask.
"""

from __future__ import annotations

import gc
import random
import resource
import tempfile
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
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
_INDEX: Final = "index"
_BUILT: Final = "built.json"


class _Spent:
    """Seconds by the clock, and of the processor."""

    def __init__(self) -> None:
        self.wall_s = self.cpu_s = 0.0

    def since(self, wall_s: float, cpu_s: float) -> None:
        self.wall_s += time.perf_counter() - wall_s
        self.cpu_s += time.process_time() - cpu_s


class Corpus:
    """Entries of the log that never was."""

    def __init__(self, entries: int, days: int, vocabulary: int) -> None:
        self.entries = entries
        self.days = days
        self.spent = _Spent()
        """On making it."""
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
            began = time.perf_counter(), time.process_time()
            made = index, self.fields(index), (self.text(index),)
            self.spent.since(*began)
            yield made


class Built(msgspec.Struct, frozen=True, kw_only=True):
    """What the build was given and what it took, beside the corpus; kept with the index."""

    entries: int
    days: int
    vocabulary: int
    words: int = _WORDS
    """Of an entry."""
    build_s: float
    build_cpu_s: float
    """Of the processor, which a machine that is busy with other work does not lengthen as it does `build_s`."""
    corpus_s: float
    memory_built_bytes: int
    """Most memory of the process after the build."""


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

    built: Built
    asked_again: bool
    """The index was there already."""
    bytes: int
    memory_read_bytes: int
    """Most memory of the process after the queries; when it built the index as well, more than after the build is what
    reading added."""
    queries: tuple[Figure, ...]


def measure(corpus: Corpus, root: Path, rounds: int, say: Callable[[str], None]) -> Figures:
    """Build in `root` unless the index of this corpus is there, then `rounds` queries of each kind. Raises
    `click.UsageError` when something else is there."""
    kept = _kept(corpus, root)
    built = kept or _build(corpus, root, say)
    index = root / _INDEX
    queries = _queries(corpus, Index(index, _key), rounds)
    return Figures(
        built=built,
        asked_again=kept is not None,
        bytes=sum(path.stat().st_size for path in index.rglob("*") if path.is_file()),
        memory_read_bytes=_memory_bytes(),
        queries=queries,
    )


def _kept(corpus: Corpus, root: Path) -> Built | None:
    """What an earlier run wrote when its build was whole; None when there is nothing at all."""
    try:
        built = msgspec.json.decode((root / _BUILT).read_bytes(), type=Built)
    except FileNotFoundError:
        if root.is_dir() and any(root.iterdir()):
            what = f"{root} holds something, and no whole index; it may be left of a build that was cut off."
            raise click.UsageError(f"{what} Give a directory that is empty or not there.") from None
        return None
    except msgspec.DecodeError as error:
        raise click.UsageError(f"{root / _BUILT} is damaged or of another release. Delete the directory.") from error
    asked = (corpus.entries, corpus.days, len(corpus.words), _WORDS)
    if (built.entries, built.days, built.vocabulary, built.words) != asked:
        what = f"--entries {built.entries} --days {built.days} --vocabulary {built.vocabulary}"
        raise click.UsageError(f"{root} holds the index of another corpus: {what}.")
    return built


def _build(corpus: Corpus, root: Path, say: Callable[[str], None]) -> Built:
    began, began_cpu = time.perf_counter(), time.process_time()

    def progress(index: int) -> None:
        if index % (1 << 16) == 0:
            net = time.perf_counter() - began - corpus.spent.wall_s
            say(f"{index} entries, {index / max(net, 1e-9):.0f} a second")

    gc.disable()
    try:
        build(root / _INDEX, _key, corpus.follow, progress=progress)
    finally:
        gc.enable()
    built = Built(
        entries=corpus.entries,
        days=corpus.days,
        vocabulary=len(corpus.words),
        build_s=time.perf_counter() - began - corpus.spent.wall_s,
        build_cpu_s=time.process_time() - began_cpu - corpus.spent.cpu_s,
        corpus_s=corpus.spent.wall_s,
        memory_built_bytes=_memory_bytes(),
    )
    (root / _BUILT).write_bytes(msgspec.json.encode(built))
    return built


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
@click.option(
    "--keep",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keep the index in this directory, or ask the one that is kept there.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def main(entries: int, days: int, vocabulary: int, rounds: int, keep: Path | None, as_json: bool) -> None:
    """Measure the search index: 10,000,000 entries take about ten minutes and 3 GB of disk."""
    corpus = Corpus(entries, days, vocabulary)
    with _directory(keep) as root:
        found = measure(corpus, root, rounds, lambda text: click.echo(text, err=True))
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found)).decode())
    else:
        _print(found)


@contextmanager
def _directory(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        yield keep
        return
    with tempfile.TemporaryDirectory(prefix="rempart-search-") as name:
        yield Path(name)


def _print(found: Figures) -> None:
    built = found.built
    click.echo(f"{built.entries} entries of {built.words} words over {built.days} days")
    click.echo(
        f"build   {built.build_s:.1f} s, {built.build_cpu_s:.1f} s of the processor, "
        f"{built.entries / built.build_cpu_s:.0f} entries per processor second, beside the corpus"
        f"{'; an earlier run' if found.asked_again else ''}"
    )
    click.echo(f"index   {found.bytes} bytes, {found.bytes / built.entries:.0f} an entry")
    click.echo(
        f"memory  {built.memory_built_bytes >> 20} MiB after the build, {found.memory_read_bytes >> 20} MiB at the end"
        f"{' of this run' if found.asked_again else ''}"
    )
    click.echo(f"{'query':<24}{'found':>7}{'stopped':>9}{'p50':>12}{'p95':>12}")
    for one in found.queries:
        click.echo(f"{one.kind:<24}{one.found:>7.1f}{one.stopped:>9}{one.p50_ms:>9.1f} ms{one.p95_ms:>9.1f} ms")


if __name__ == "__main__":
    main()
