"""Every write of the index fails once, with and without having happened: the old state is found, or the new one, never
half of one; the next writer makes it whole, and leaves no old bytes."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rempart.errors import RempartError
from rempart.ledger.search.build import build
from rempart.ledger.search.manifest import read
from rempart.ledger.search.writer import IndexWriter
from rempart.testing.search import Log, entry, key, mentioned, run_files

CALLS = ("pwrite", "fsync", "rename", "unlink", "open", "mkdir")
MOST = 60
OLD = Log([entry(number, f"w{number} all", day=1 + number % 2) for number in range(20)])
NEW = Log([entry(number, f"w{number} all", day=1 + number % 3) for number in range(20, 40)])
LOG = Log([*OLD.follow(0), *NEW.follow(0)])


class Fault:
    """Makes the nth call of one system call fail, and all that would change the disk after it, as a crash does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str, at: int, persists: bool) -> None:
        self.calls = 0
        self.happened = False
        for other in CALLS:
            self._wrap(monkeypatch, other, at if other == name else 0, persists)

    def _wrap(self, monkeypatch: pytest.MonkeyPatch, name: str, at: int, persists: bool) -> None:
        real = getattr(os, name)

        def call(*arguments: Any, **more: Any) -> Any:
            if self.happened:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            self.calls += bool(at)
            if at and self.calls == at:
                self.happened = True
                if persists and name != "open":
                    real(*arguments, **more)
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return real(*arguments, **more)

        monkeypatch.setattr(os, name, call)


def commit(directory: Path) -> None:
    build(directory, key, LOG.follow)


def erase(directory: Path) -> None:
    with IndexWriter(directory, key) as writer:
        writer.erase([0, 1, 7])


def forget(directory: Path) -> None:
    path = run_files(directory)[0]
    path.write_bytes(bytes(8192))
    build(directory, key, LOG.follow, check=True)


@pytest.mark.parametrize("persists", [False, True])
@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("change", [commit, erase, forget])
def test_a_crash_at_any_write_leaves_the_old_state_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None], name: str, persists: bool
) -> None:
    for at in range(1, MOST):
        directory = tmp_path / str(at)
        OLD.build(directory)
        if change is erase:
            LOG.build(directory)
        before = mentioned(directory)
        with monkeypatch.context() as faulty:
            fault = Fault(faulty, name, at, persists)
            try:
                change(directory)
            except (OSError, RempartError):
                assert fault.happened
        if change is not forget:
            found = set(LOG.search(directory, "all").entries)
            assert found == mentioned(directory)
            assert found in (before, set(LOG.entries) if change is commit else set(LOG.entries) - {0, 1, 7})
        change(directory) if change is not forget else build(directory, key, LOG.follow, check=True)
        gone = {0, 1, 7} if change is erase else set()
        assert mentioned(directory) == set(LOG.entries) - gone
        named = {run.path(directory) for run in read(directory).runs}
        assert set(run_files(directory)) == named
        if not fault.happened:
            return
    pytest.fail(f"{name} is called more than {MOST} times")
