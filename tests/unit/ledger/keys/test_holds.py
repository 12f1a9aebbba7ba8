"""`rempart.ledger.keys.holds`: what is held can be had though its own key is gone, until the hold is released."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from rempart import limits
from rempart.errors import KeystoreError, NotFound
from rempart.ledger.keys.holds import Hold, held, held_key, hold, holds, release, wrap
from rempart.ledger.keys.keystore import Keystore
from rempart.ledger.keys.rows import Rewrite, Row, Rows
from rempart.ledger.keys.sqlite_rows import SqliteRows

CASE = Hold(id="case-7", reason="file 7", by="a_" + "0" * 32, began="2026-11-23T17:00:00.000000Z", scope={"model": "m"})


@pytest.fixture
def keystore(tmp_path: Path) -> Iterator[Keystore]:
    made = Keystore.create(tmp_path / "keys")
    yield made
    made.close()


def exchanges(count: int) -> dict[str, bytes]:
    return {secrets.token_hex(16): secrets.token_bytes(32) for _ in range(count)}


def test_what_is_held_can_be_had_again(keystore: Keystore, tmp_path: Path) -> None:
    keys = exchanges(5)
    hold(keystore, CASE)
    wrap(keystore, "case-7", keys)
    keystore.close()
    opened = Keystore.open(tmp_path / "keys")
    assert holds(opened) == [CASE]
    assert {name: held_key(opened, name) for name in keys} == keys
    assert sorted(held(opened, "case-7")) == sorted(keys)
    assert held_key(opened, secrets.token_hex(16)) is None
    opened.close()


def test_wrapping_again_and_more_is_no_error(keystore: Keystore) -> None:
    first, second = exchanges(3), exchanges(3)
    hold(keystore, CASE)
    wrap(keystore, "case-7", first)
    wrap(keystore, "case-7", {**first, **second})
    assert {name: held_key(keystore, name) for name in (*first, *second)} == {**first, **second}


def test_describing_it_anew_keeps_what_it_holds(keystore: Keystore) -> None:
    keys = exchanges(1)
    hold(keystore, CASE)
    wrap(keystore, "case-7", keys)
    agreed = msgspec.structs.replace(CASE, released_by=("a_" + "1" * 32,))
    hold(keystore, agreed)
    assert holds(keystore) == [agreed]
    assert [held_key(keystore, name) for name in keys] == list(keys.values())


def test_a_release_destroys_the_hold_and_no_other(keystore: Keystore) -> None:
    keys, shared = exchanges(40), exchanges(1)
    other = msgspec.structs.replace(CASE, id="case-70")
    for one in (CASE, other):
        hold(keystore, one)
        wrap(keystore, one.id, shared)
    wrap(keystore, "case-7", keys)
    assert release(keystore, "case-7") == keystore.epoch
    assert holds(keystore) == [other]
    assert [held_key(keystore, name) for name in keys] == [None] * 40
    assert [held_key(keystore, name) for name in shared] == list(shared.values())
    assert held(keystore, "case-7") == []
    with pytest.raises(NotFound, match="no hold case-7"):
        release(keystore, "case-7")


def test_a_release_gives_one_shard_a_new_key_however_many_are_held(
    keystore: Keystore, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold(keystore, CASE)
    wrap(keystore, "case-7", exchanges(2_500))
    assert len(held(keystore, "case-7")) == 2_500
    rewrite, seen = keystore._rows.rewrite, []

    def watched(change: Rewrite) -> None:
        seen.append(change)
        rewrite(change)

    monkeypatch.setattr(keystore._rows, "rewrite", watched)
    release(keystore, "case-7")
    assert [(len(change.touched), len(change.delete)) for change in seen] == [(1, 2_501)]
    assert list(keystore.ids("held")) == []


def test_looking_for_an_exchange_reads_points_whatever_is_held(tmp_path: Path) -> None:
    class Counting(SqliteRows):
        def get(self, kind: str, id_: str) -> bytes | None:
            asked.append(f"{kind}/{id_}")
            return super().get(kind, id_)

        def scan(self, kind: str, prefix: str = "") -> Iterator[Row]:
            asked.append(f"scan {kind}")
            return super().scan(kind, prefix)

    asked: list[str] = []
    directory = tmp_path / "keys"
    directory.mkdir(mode=0o700)
    rows: Rows = Counting(directory / "keystore.db")
    keystore = Keystore.create(directory, rows)
    hold(keystore, CASE)
    keys = exchanges(1_500)
    wrap(keystore, "case-7", keys)
    name = next(iter(keys))
    asked.clear()
    assert held_key(keystore, name) == keys[name]
    assert asked == ["scan hold", f"held/case-7/{name}"]
    keystore.close()


def test_a_wrap_moved_to_another_exchange_does_not_open(keystore: Keystore) -> None:
    hold(keystore, CASE)
    wrap(keystore, "case-7", {"1" * 32: bytes(32)})
    moved = keystore.get("held", "case-7/" + "1" * 32)
    assert moved is not None
    keystore.put({("held", "case-7/" + "2" * 32): moved})
    with pytest.raises(KeystoreError, match="does not open"):
        held_key(keystore, "2" * 32)


@pytest.mark.parametrize("id_", ["", "Case", "a/b", "-a", "a" * 65, "a b"])
def test_an_id_that_is_no_short_word_is_refused(keystore: Keystore, id_: str) -> None:
    with pytest.raises(KeystoreError, match="no id"):
        hold(keystore, msgspec.structs.replace(CASE, id=id_))


def test_bounds_are_kept(keystore: Keystore, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeystoreError, match="too long"):
        hold(keystore, msgspec.structs.replace(CASE, reason="x" * limits.hold_text_chars_max))
    monkeypatch.setattr(limits, "holds_max", 1)
    hold(keystore, CASE)
    hold(keystore, CASE)
    with pytest.raises(KeystoreError, match="1 holds already"):
        hold(keystore, msgspec.structs.replace(CASE, id="another"))


def test_nothing_is_wrapped_for_a_hold_that_is_not_there(keystore: Keystore) -> None:
    with pytest.raises(NotFound):
        wrap(keystore, "case-7", exchanges(1))


def test_a_damaged_description_is_told(keystore: Keystore) -> None:
    keystore.put({("hold", "case-7"): bytes(32) + b"{"})
    with pytest.raises(KeystoreError, match="damaged"):
        holds(keystore)
