"""`rempart.witness`: keys, memory and clerk on a real directory; killed, damaged, raced."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from rempart.errors import ConfigError, KeystoreError, LedgerCorrupt, LedgerUnavailable
from rempart.ledger.log.cosignature import CosignatureVerifier
from rempart.ledger.log.policy import Log
from rempart.testing.trees import Trees
from rempart.witness.opening import make_keys, open_witness, read_logs, read_vkeys

NAME = "witness.example/w"
LEAVES = [b"leaf %d" % number for number in range(20)]
LOG = Trees("log.example/one", bytes(32))
LOGS = (Log(LOG.signer.verifier),)


def ask(data: Path, body: bytes) -> tuple[int, bytes]:
    with open_witness(data, NAME, LOGS) as clerk:
        found = clerk.add_checkpoint(body)
    return found.status, found.body


def kept(data: Path) -> Path:
    (path,) = (data / "witness" / "logs").iterdir()
    return path


def test_what_was_cosigned_is_known_after_a_restart(tmp_path: Path) -> None:
    assert ask(tmp_path, LOG.submission(0, LEAVES[:8]))[0] == 200
    assert ask(tmp_path, LOG.submission(0, LEAVES)) == (409, b"8\n")
    assert ask(tmp_path, LOG.submission(8, LEAVES))[0] == 200
    assert ask(tmp_path, LOG.submission(8, LEAVES)) == (409, b"20\n")


def test_keys_stay_and_their_name_with_them(tmp_path: Path) -> None:
    vkeys = make_keys(tmp_path, NAME)
    assert vkeys == make_keys(tmp_path, "") == read_vkeys(tmp_path)
    assert [CosignatureVerifier.from_vkey(vkey).kind for vkey in vkeys] == [4, 6]
    with pytest.raises(ConfigError, match="is called"):
        make_keys(tmp_path, "witness.example/other")


def test_a_witness_without_a_name_or_with_a_bad_one_is_not_begun(tmp_path: Path) -> None:
    for name in ("", "two words", "a+b", "é" * 200):
        with pytest.raises(ConfigError):
            make_keys(tmp_path / "a", name)
    assert read_vkeys(tmp_path / "a") == []


def test_keys_are_owner_only_and_not_begun_anew(tmp_path: Path) -> None:
    make_keys(tmp_path, NAME)
    root = tmp_path / "witness" / "keys" / "root.key"
    assert root.stat().st_mode & 0o077 == 0
    root.chmod(0o644)
    with pytest.raises(KeystoreError, match="others"):
        make_keys(tmp_path, NAME)
    root.unlink()
    with pytest.raises(KeystoreError, match="gone"):
        make_keys(tmp_path, NAME)


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[20] ^= 1
    path.write_bytes(data)


def _forge(path: Path) -> None:
    """An older checkpoint, signed by the log alone."""
    path.write_bytes(LOG.note(LEAVES[:2]))


@pytest.mark.parametrize("damage", [_flip, _forge, Path.unlink, lambda path: path.write_bytes(b"")])
def test_a_memory_that_is_damaged_or_gone_fails_closed(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    assert ask(tmp_path, LOG.submission(0, LEAVES[:8]))[0] == 200
    damage(kept(tmp_path))
    for _ in range(2):
        with pytest.raises(LedgerCorrupt):
            ask(tmp_path, LOG.submission(0, LEAVES))


def test_a_disk_that_fails_means_no_cosignature_and_no_forgetting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with open_witness(tmp_path, NAME, LOGS) as clerk:
        assert clerk.add_checkpoint(LOG.submission(0, LEAVES[:8])).status == 200
        for name in ("fsync", "rename", "pwrite"):
            with monkeypatch.context() as faulty:
                faulty.setattr(os, name, fail)
                with pytest.raises(LedgerUnavailable):
                    clerk.add_checkpoint(LOG.submission(8, LEAVES))
            assert clerk.add_checkpoint(LOG.submission(0, LEAVES)).body == b"8\n"
        assert clerk.add_checkpoint(LOG.submission(8, LEAVES)).status == 200


def test_of_two_that_race_one_is_cosigned_and_the_other_learns_its_size(tmp_path: Path) -> None:
    forked = [*LEAVES[:19], b"another"]
    for turn in range(20):
        data = tmp_path / str(turn)
        with open_witness(data, NAME, LOGS) as clerk:
            start, found = threading.Barrier(2), []

            def send(leaves: list[bytes]) -> None:
                start.wait()  # noqa: B023
                found.append(clerk.add_checkpoint(LOG.submission(0, leaves)))  # noqa: B023

            threads = [threading.Thread(target=send, args=(leaves,)) for leaves in (LEAVES, forked)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert sorted((one.status, one.status == 409 and one.body) for one in found) == [(200, False), (409, b"20\n")]


def test_a_body_that_is_nothing_is_a_bad_request(tmp_path: Path) -> None:
    for body in (b"", b"\xff", b"old 0\n\nx", b"old 0\n\nx\ny\n\n\xe2\x80\x94 a AAAAAAAA\n"):
        assert ask(tmp_path, body)[0] == 400


def test_logs_are_read_from_a_policy_or_from_keys() -> None:
    vkey = LOG.signer.verifier.vkey
    for text in (f"{vkey}\n", f"# ours\n\n{vkey}", f"log {vkey} https://log.example/\nquorum none\n"):
        (log,) = read_logs(text.encode())
        assert log.key.name == LOG.origin
    for text in ("", "# nothing\n", "quorum none\n", "no key\n", vkey[:-3]):
        with pytest.raises(ConfigError):
            read_logs(text.encode())
