"""`rempart.bench.environments`: an environment is whole, or it is not there."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from rempart.bench.environments import EnvironmentMissing, engines_cache, environment, make, size_bytes


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    path = tmp_path / "nothing.lock"
    path.write_text("# nothing to install\n")
    return path


def test_it_is_made_once_and_told_in_two_lines(lock: Path, tmp_path: Path) -> None:
    wanted = environment("nothing", lock, tmp_path / "cache")
    told: list[str] = []
    make(wanted, sys.executable, told.append)
    assert wanted.whole
    assert len(told) == 2
    assert wanted.packages.is_dir()
    assert size_bytes(wanted.place) > 0
    make(wanted, sys.executable, told.append)
    assert len(told) == 2


def test_another_lock_is_another_place(lock: Path, tmp_path: Path) -> None:
    before = environment("nothing", lock, tmp_path).place
    lock.write_text("# something else\n")
    assert environment("nothing", lock, tmp_path).place != before


def test_what_a_broken_installation_left_is_never_used(lock: Path, tmp_path: Path) -> None:
    wanted = environment("nothing", lock, tmp_path / "cache")
    wanted.place.mkdir(parents=True)
    (wanted.place / "half").touch()
    assert not wanted.whole
    make(wanted, sys.executable, lambda _: None)
    assert wanted.whole
    assert not (wanted.place / "half").exists()


def test_a_lock_that_cannot_be_installed_leaves_nothing_whole(lock: Path, tmp_path: Path) -> None:
    lock.write_text("no-such-thing==1 --hash=sha256:" + "0" * 64 + "\n")
    wanted = environment("nothing", lock, tmp_path / "cache")
    with pytest.raises(EnvironmentMissing, match="could not be installed"):
        make(wanted, "/bin/false", lambda _: None)
    assert not wanted.whole
    assert wanted.version("no-such-thing") == "1"
    assert wanted.version("other") == ""


def test_the_cache_may_lie_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REMPART_ENGINES_CACHE", str(tmp_path))
    assert engines_cache() == tmp_path
    monkeypatch.delenv("REMPART_ENGINES_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert engines_cache() == tmp_path / "rempart" / "engines"


def test_without_its_lock_it_says_to_run_from_a_checkout(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentMissing, match="checkout"):
        environment("nothing", tmp_path / "none.lock", tmp_path)
