"""`Log`: a small log to be searched, what a naive scan finds in it, and `mentioned`, what an index says of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from rempart.ledger.search.build import Built, Progress, build
from rempart.ledger.search.files import open_run
from rempart.ledger.search.index import Index, Results
from rempart.ledger.search.manifest import read
from rempart.ledger.search.query import Query, parse
from rempart.ledger.search.terms import TermKeys
from rempart.ledger.search.words import words

Entry = tuple[int, Mapping[str, Any], Sequence[str]]


def key(retention: str, bucket: str) -> bytes:
    return sha256(f"{retention}/{bucket}".encode()).digest()


def fields(day: int = 1, hour: int = 0, **more: Any) -> dict[str, Any]:
    """Of an entry of that day of November 2026."""
    date = f"2026-11-{day:02d}"
    return {"class": "standard", "bucket": date, "time": f"{date}T{hour:02d}:30:00.000000Z", **more}


def entry(index: int, *texts: str, **more: Any) -> Entry:
    return index, fields(**more), texts


class Log:
    """Entries by index, of which some can no longer be read."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries = {index: (given, texts) for index, given, texts in entries}
        self.erased: set[int] = set()

    def follow(self, first: int) -> Iterator[Entry]:
        for index, (given, texts) in sorted(self.entries.items()):
            if index >= first:
                yield (index, {"type": "stop"}, ()) if index in self.erased else (index, given, texts)

    def texts(self, index: int) -> Sequence[str] | None:
        return None if index in self.erased else self.entries[index][1]

    def build(self, directory: Path, *, check: bool = False) -> None:
        build(directory, key, self.follow, check=check)

    def search(self, directory: Path, text: str, limit: int = 1000, below: int | None = None) -> Results:
        return Index(directory, key).search(parse(text), limit=limit, texts=self.texts, below=below)

    def scan(self, text: str) -> tuple[int, ...]:
        """What a search must find."""
        query = parse(text)
        return tuple(sorted((index for index in self.entries if self._matches(index, query)), reverse=True))

    def _matches(self, index: int, query: Query) -> bool:
        given, texts = self.entries[index]
        if index in self.erased or "class" not in given:
            return False
        lines = [" ".join(["", *words(text), ""]) for text in texts]
        said = {word for line in lines for word in line.split()}
        return (
            all(word in said for word in query.words)
            and all(any(f" {' '.join(phrase)} " in line for line in lines) for phrase in query.phrases)
            and all(any(_has(given, name, value) for value in values) for name, values in query.fields)
            and (not query.classes or given["class"] in query.classes)
            and (query.after is None or given["time"] >= query.after.strftime("%Y-%m-%dT%H"))
            and (query.before is None or given["time"] < query.before.strftime("%Y-%m-%dT%H"))
        )


def _has(given: Mapping[str, Any], name: str, value: str) -> bool:
    found = given.get(name, ())
    return value in (found.casefold(),) if isinstance(found, str) else value in found


def mentioned(directory: Path) -> set[int]:
    """All entries of which any run says anything, read with the live keys."""
    found: set[int] = set()
    for run in read(directory).runs:
        with open_run(directory, run, TermKeys(key(run.partition.retention, run.partition.bucket))) as reading:
            for name, _, _ in reading.records():
                found |= {run.first + ordinal for ordinal in reading.find(name) or ()}
    return found


def run_files(directory: Path) -> list[Path]:
    return sorted(directory.glob("*/*/*.run"))


def build_log(directory: Path, entries: Sequence[Entry], *, progress: Progress) -> Built:
    """What a child is told to do."""
    return build(directory, key, Log(entries).follow, progress=progress)
