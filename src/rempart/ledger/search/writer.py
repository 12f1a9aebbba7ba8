"""`IndexWriter`: puts entries into the index, takes them out, and leaves the old state or the new one at any crash.

Every change goes the same way: new runs durable → the manifest replaced → runs that it no longer names destroyed. What
a crash leaves undone of the last step is done when the next writer opens. Entries are gathered in memory up to
`limits.index_memory_bytes`; runs of one window and partition are merged so that each is at least twice the next.
One writer at a time, held by a lock on `<index>/writer.lock`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
from pyroaring import BitMap

from rempart import limits
from rempart.errors import DirectoryLocked, IndexDamaged
from rempart.ledger.search import gather, postings
from rempart.ledger.search import manifest as manifests
from rempart.ledger.search.blocks import Stream
from rempart.ledger.search.files import destroy, open_run, write_run
from rempart.ledger.search.manifest import Gap, Manifest, Partition, Run
from rempart.ledger.search.postings import WINDOW, WINDOW_BITS
from rempart.ledger.search.terms import ALL, TermKeys, field_terms
from rempart.ledger.search.words import words
from rempart.ledger.store.files import make_directory, sync_directory

Key = Callable[[str, str], bytes | None]
"""The key of a class's bucket, None when it was destroyed."""


class IndexWriter:
    """Not safe for use by several threads at once."""

    def __init__(self, directory: Path, key: Key, *, random: Callable[[int], bytes] = secrets.token_bytes) -> None:
        """Waits for the lock up to `limits.index_lock_s`. Raises `DirectoryLocked`, `OSError`."""
        self._directory = directory
        self._key = key
        self._random = random
        self._keys: dict[Partition, TermKeys | None] = {}
        self._gathered = gather.Gathered()
        self._last = -1
        self._written: list[Run] = []
        """Runs that are durable and that the manifest does not name yet."""
        self.cut = 0
        """Entries with more different words than `limits.index_words_max`: the rest of them is not searched."""
        self.keyless = 0
        """Entries whose bucket's key was destroyed: they are not indexed."""
        self.damaged: list[str] = []
        """What was found damaged and has to be built anew, in words."""
        make_directory(directory)
        self._lock = _lock(directory / "writer.lock")
        try:
            self._manifest = self._read()
            self._number = self._manifest.next_number
            self._sweep()
        except BaseException:
            os.close(self._lock)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """What was not committed is dropped."""
        os.close(self._lock)

    @property
    def mark(self) -> int:
        """Index of the first entry that was not looked at yet."""
        return self._manifest.mark

    @property
    def gaps(self) -> tuple[Gap, ...]:
        return self._manifest.gaps

    def add(self, index: int, fields: Mapping[str, Any], texts: Iterable[str]) -> None:
        """Put an entry in, once, in ascending order between two commits.

        `fields` are those of the entry; without class and bucket there is nothing of it to be found.
        """
        if index <= self._last:
            raise ValueError("entries are added in ascending order, each once")
        self._last = index
        if not fields.get("class") or not fields.get("bucket"):
            return
        partition = manifests.partition_of(fields["class"], fields["bucket"])
        if self._term_keys(partition) is None:
            self.keyless += 1
            return
        self._gathered.add(partition, index, self._terms(fields, texts))
        if self._gathered.bytes > limits.index_memory_bytes:
            self._flush()

    def _terms(self, fields: Mapping[str, Any], texts: Iterable[str]) -> set[str]:
        terms = set(field_terms(fields))
        for text in texts:
            found = words(text)
            if len(terms) + len(found) <= limits.index_words_max:
                terms.update(found)
                continue
            for word in found:
                if len(terms) >= limits.index_words_max:
                    self.cut += 1
                    return terms
                terms.add(word)
        return terms

    def commit(self, mark: int) -> None:
        """What was added, and that the log was looked at up to `mark`, is durable and found when it returns.

        Raises `OSError`; this writer must then be closed, and the next one goes on from the state before or after.
        """
        self._commit(max(mark, self.mark), self.gaps)

    def fill(self, gap: Gap, upto: int) -> None:
        """Commit what was added of a gap, whose entries before `upto` have now all been added."""
        left = tuple(one for one in self.gaps if one != gap)
        if upto < gap.stop:
            left = (*left, Gap(gap.partition, upto, gap.stop))
        self._commit(self.mark, left)

    def erase(self, entries: Iterable[int]) -> int:
        """Rewrite every run that mentions one of these entries; how many there were.

        Their old bytes are gone when it returns. Raises `OSError`; it is then called again, on a new writer. A run that
        cannot be read is destroyed with its partition, which becomes a gap.
        """
        if self._gathered or self._written:
            raise ValueError("what was added is committed before entries are erased")
        by_window: dict[int, BitMap] = {}
        for index in entries:
            by_window.setdefault(index >> WINDOW_BITS, BitMap()).add(index & WINDOW - 1)
        kept, rewritten, broken = list[Run](), 0, dict[Partition, str]()
        for run in self._manifest.runs:
            erased, keys = by_window.get(run.window), self._term_keys(run.partition)
            stream = None
            try:
                stream = None if erased is None or keys is None else self._erased(run, keys, erased)
            except IndexDamaged as error:
                broken[run.partition] = error.message
            if stream is None or keys is None:
                kept.append(run)
                continue
            rewritten += 1
            if stream.names:
                kept.append(self._write(run.partition, run.window, stream, keys))
        if rewritten:
            self._switch(runs=kept)
        for partition, message in broken.items():
            self._forget(partition, message)
        return rewritten + len(broken)

    def clear(self) -> None:
        """Destroy all runs: the log is then indexed anew from its beginning."""
        self._switch(runs=(), gaps=(), mark=0)

    def drop(self, retention: str, bucket: str) -> None:
        """Remove a partition whose time is over."""
        partition = manifests.partition_of(retention, bucket)
        self._switch(
            runs=[run for run in self._manifest.runs if run.partition != partition],
            gaps=[gap for gap in self.gaps if gap.partition != partition],
        )
        with contextlib.suppress(FileNotFoundError):
            manifests.partition_path(self._directory, partition).rmdir()

    def check(self) -> int:
        """Read every run; a partition with a damaged one is emptied and becomes a gap. How many runs were read."""
        read = 0
        for run in self._manifest.runs:
            keys = self._term_keys(run.partition)
            if keys is None or run not in self._manifest.runs:
                continue
            read += 1
            try:
                with open_run(self._directory, run, keys) as reading:
                    for _, count, payload in reading.records():
                        postings.decode(count, payload)
            except IndexDamaged as error:
                self._forget(run.partition, error.message)
        return read

    # How it is done.

    def _read(self) -> Manifest:
        try:
            return manifests.read(self._directory)
        except IndexDamaged as error:
            # Nothing can be kept without the list: the sweep removes the files, and all is indexed anew.
            self.damaged.append(error.message)
            return Manifest(generation=int.from_bytes(self._random(6), "big"))

    def _sweep(self) -> None:
        """Destroy the files that the manifest does not name."""
        named = {run.path(self._directory) for run in self._manifest.runs}
        self._destroy([path for path in sorted(self._directory.glob("*/*/*.run")) if path not in named])

    def _destroy(self, paths: Sequence[Path]) -> None:
        for path in paths:
            destroy(path)
        for directory in sorted({path.parent for path in paths}):
            with contextlib.suppress(FileNotFoundError):
                sync_directory(directory)

    def _commit(self, mark: int, gaps: Sequence[Gap]) -> None:
        self._flush()
        self._last = -1
        runs, broken = list(self._manifest.runs), dict[Partition, str]()
        for partition, window in sorted({(run.partition, run.window) for run in self._written}):
            of = [run for run in (*runs, *self._written) if run.partition == partition and run.window == window]
            runs = [run for run in runs if run not in of]
            try:
                runs += self._compacted(of)
            except IndexDamaged as error:
                runs += of
                broken[partition] = error.message
        self._switch(runs=runs, gaps=gaps, mark=mark)
        for partition, message in broken.items():
            self._forget(partition, message)

    def _flush(self) -> None:
        """Write what is gathered as runs."""
        for partition, window, terms in self._gathered.drain():
            keys = self._term_keys(partition)
            assert keys is not None  # else nothing was gathered
            self._write(partition, window, gather.stream_of(terms, keys), keys)

    def _compacted(self, runs: Sequence[Run]) -> list[Run]:
        """Of one partition and window: the last ones merged, as far as none is twice as large as those after it."""
        runs = sorted(runs, key=lambda run: run.number)
        sizes = [run.path(self._directory).stat().st_size for run in runs]
        first, size = len(runs) - 1, sizes[-1]
        while first and sizes[first - 1] < 2 * size and size + sizes[first - 1] <= limits.index_run_bytes_max:
            first -= 1
            size += sizes[first]
        if first == len(runs) - 1:
            return runs
        keys = self._term_keys(runs[0].partition)
        assert keys is not None
        with contextlib.ExitStack() as stack:
            readings = [stack.enter_context(open_run(self._directory, run, keys)) for run in runs[first:]]
            stream = gather.merged(readings)
        return [*runs[:first], self._write(runs[0].partition, runs[0].window, stream, keys)]

    def _erased(self, run: Run, keys: TermKeys, erased: BitMap) -> Stream | None:
        """The run without these entries; None when it mentions none of them."""
        with open_run(self._directory, run, keys) as reading:
            mentioned = reading.find(keys.name(ALL))
            if mentioned is None or mentioned.isdisjoint(erased):
                return None
            return gather.without(reading, erased)

    def _forget(self, partition: Partition, message: str) -> None:
        """Destroy a partition's runs and note that its entries are missing."""
        self.damaged.append(message)
        firsts = [run.first for run in self._manifest.runs if run.partition == partition]
        firsts += [gap.first for gap in self.gaps if gap.partition == partition]
        self._switch(
            runs=[run for run in self._manifest.runs if run.partition != partition],
            gaps=[gap for gap in self.gaps if gap.partition != partition]
            + [Gap(partition, min(firsts, default=0), self.mark)],
        )

    def _write(self, partition: Partition, window: int, stream: Stream, keys: TermKeys) -> Run:
        run = Run(window, self._number, partition)
        self._number += 1
        write_run(self._directory, run, stream, keys, self._random)
        self._written.append(run)
        return run

    def _switch(self, *, runs: Sequence[Run], gaps: Sequence[Gap] | None = None, mark: int | None = None) -> None:
        """The one step from an old state to a new one."""
        old = self._manifest
        new = msgspec.structs.replace(
            old,
            generation=old.generation + 1,
            mark=old.mark if mark is None else mark,
            next_number=self._number,
            runs=tuple(sorted(runs)),
            gaps=old.gaps if gaps is None else tuple(sorted(gaps)),
        )
        manifests.write(self._directory, new)
        gone = {*old.runs, *self._written} - set(new.runs)
        self._manifest, self._written = new, []
        self._destroy([run.path(self._directory) for run in sorted(gone)])

    def _term_keys(self, partition: Partition) -> TermKeys | None:
        if partition not in self._keys:
            key = self._key(partition.retention, partition.bucket)
            self._keys[partition] = None if key is None else TermKeys(key)
        return self._keys[partition]


def _lock(path: Path) -> int:
    """The descriptor that holds the lock; the system lets go of it when the process ends, however it ends."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + limits.index_lock_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EINTR) or time.monotonic() >= deadline:
                os.close(descriptor)
                raise DirectoryLocked(
                    "Another process is writing the search index.", hint="Wait until it is done, and try again."
                ) from error
        time.sleep(limits.index_lock_poll_s)
