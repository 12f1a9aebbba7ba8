"""`rempart.ledger.store.ownership`: one process at a time, and the lock goes with its process."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rempart.errors import DirectoryLocked
from rempart.ledger.store.ownership import own

_HOLDER = """
import sys
from pathlib import Path
from rempart.ledger.store.ownership import own
with own(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def another_process(data: Path) -> Iterator[subprocess.Popen[str]]:
    """It holds the lock until its input ends or it is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(data)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def test_the_lock_of_another_process_is_respected_and_its_id_told(tmp_path: Path) -> None:
    with another_process(tmp_path) as process:
        with pytest.raises(DirectoryLocked, match=rf"\({process.pid}\)") as caught, own(tmp_path):
            pytest.fail("it was had twice")
        assert caught.value.hint


def test_a_process_that_was_killed_holds_nothing(tmp_path: Path) -> None:
    with another_process(tmp_path) as process:
        process.kill()
        process.wait()
        with own(tmp_path):
            pass


def test_a_second_owner_in_this_process_is_refused(tmp_path: Path) -> None:
    with own(tmp_path):
        with pytest.raises(DirectoryLocked, match=rf"\({os.getpid()}\)"), own(tmp_path):
            pytest.fail("it was had twice")
        with pytest.raises(DirectoryLocked), own(tmp_path):
            pytest.fail("the refusal let go of the first one's lock")


def test_the_next_one_has_it_when_the_first_is_done(tmp_path: Path) -> None:
    with own(tmp_path):
        pass
    with pytest.raises(RuntimeError, match="inside"), own(tmp_path):
        raise RuntimeError("inside")
    with own(tmp_path):
        pass


def test_directories_do_not_lock_each_other(tmp_path: Path) -> None:
    with own(tmp_path / "a"), own(tmp_path / "b"):
        pass


def test_the_lock_names_its_owner_and_none_before_it(tmp_path: Path) -> None:
    path = tmp_path / "run" / "lock"
    path.parent.mkdir()
    path.write_text("9" * 30)
    with own(tmp_path):
        assert path.read_text() == f"{os.getpid()}\n"


def test_the_lock_is_the_owners_alone(tmp_path: Path) -> None:
    with own(tmp_path / "data"):
        assert stat.S_IMODE((tmp_path / "data" / "run").stat().st_mode) == 0o700
        assert stat.S_IMODE((tmp_path / "data" / "run" / "lock").stat().st_mode) == 0o600


def test_a_lock_that_says_nothing_of_its_owner_is_respected(tmp_path: Path) -> None:
    with own(tmp_path):
        (tmp_path / "run" / "lock").write_bytes(b"\xff\xfe")
        with pytest.raises(DirectoryLocked), own(tmp_path):
            pytest.fail("it was had twice")
        (tmp_path / "run" / "lock").write_bytes(b"")
        with pytest.raises(DirectoryLocked, match="Another process is using"), own(tmp_path):
            pytest.fail("it was had twice")
