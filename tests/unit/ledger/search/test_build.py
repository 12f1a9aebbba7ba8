"""The builder, in this process and in one of its own."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rempart import limits
from rempart.errors import LedgerUnavailable
from rempart.ledger.search import manifest as manifests
from rempart.ledger.search.apart import build_apart
from rempart.ledger.search.build import build
from rempart.ledger.search.writer import IndexWriter
from rempart.testing.search import Log, build_log, entry, key

LOG = Log([entry(number, f"w{number} all") for number in range(3000)])


def test_a_builder_in_a_process_of_its_own_tells_how_far_it_is(tmp_path: Path) -> None:
    seen: list[int] = []
    built = build_apart(build_log, (tmp_path, list(LOG.follow(0))), seen.append)
    assert (built.mark, built.added) == (3000, 3000)
    assert seen == sorted(seen)
    assert seen[-1] == 3000
    assert LOG.search(tmp_path, "w2999").entries == (2999,)


def test_what_the_builder_raised_or_died_of_is_said(tmp_path: Path) -> None:
    manifests.write(tmp_path, manifests.Manifest(v=2))
    with pytest.raises(LedgerUnavailable, match="of a later release") as caught:
        build_apart(build_log, (tmp_path, []))
    assert "it is rebuilt" in caught.value.hint
    with pytest.raises(LedgerUnavailable, match="ended with status 1"):
        build_apart(build_log, ())


def test_batches_are_committed_one_by_one_and_others_may_write_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "index_batch_entries", 1000)
    opened: list[int] = []

    def follow(first: int) -> Iterator[Any]:
        opened.append(first)
        return LOG.follow(first)

    class Stop(Exception):
        pass

    def stopping(first: int) -> Iterator[Any]:
        for one in LOG.follow(first):
            if one[0] == 2500:
                raise Stop
            yield one

    with pytest.raises(Stop):
        build(tmp_path, key, stopping)
    with IndexWriter(tmp_path, key) as writer:
        assert writer.mark == 2000
        writer.erase([1999])
    built = build(tmp_path, key, follow)
    assert (opened, built.added, built.mark) == ([2000], 1000, 3000)
    assert LOG.search(tmp_path, "all", limit=3000).entries == tuple(n for n in range(2999, -1, -1) if n != 1999)


def test_a_gap_is_filled_in_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "index_batch_entries", 700)
    LOG.build(tmp_path)
    for path in tmp_path.glob("*/*/*.run"):
        path.write_bytes(bytes(4096))
    built = build(tmp_path, key, LOG.follow, check=True)
    assert (len(built.damaged), built.added) == (1, 3000)
    assert LOG.search(tmp_path, "all", limit=3000).entries == tuple(range(2999, -1, -1))
