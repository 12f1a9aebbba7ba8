"""`check_rows`: the conformance suite of the port `Rows`, for every adapter and for fakes of it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from rempart import limits
from rempart.errors import KeystoreChanged
from rempart.ledger.keys.rows import SHARDS, Rewrite, Row, Rows, State, shard_of

_FIRST = {number: b"shard %d" % number for number in range(SHARDS)}
_RACES = 20


def check_rows(connect: Callable[[], Rows]) -> None:
    """Raises `AssertionError`. Each `connect` opens the same place, which holds nothing at first."""
    rows, other = connect(), connect()
    try:
        _check_empty(rows)
        _check_put(rows, other)
        _check_scan(rows)
        _check_rewrite(rows, other)
        _check_undone(rows)
        _check_stale(rows, other)
        _check_race(rows, other)
    finally:
        rows.close()
        other.close()
    _check_durable(connect)


def _check_empty(rows: Rows) -> None:
    for durable in (False, True):
        assert rows.state(durable=durable) == State(0, {})
    assert rows.get("kind", "id") is None
    assert list(rows.scan("kind")) == []
    rows.rewrite(Rewrite(epoch=0, shards=_FIRST, reseal=_never))
    for durable in (False, True):
        assert rows.state(durable=durable) == State(1, _FIRST)


def _check_put(rows: Rows, other: Rows) -> None:
    """Every byte and every letter comes back, and another connection sees it at once."""
    written = {("kind", "id"): bytes(range(256)), ("kind", "Ünal/\U0001f600 %s"): b"", ("kin", "did"): b"x" * 100_000}
    assert rows.put(written, epoch=1)
    assert {name: other.get(*name) for name in written} == written
    assert rows.put({("kind", "id"): b"replaced"}, epoch=1)
    assert other.get("kind", "id") == b"replaced"
    assert rows.put({}, epoch=1)
    assert not rows.put({("kind", "new"): b"new", ("kind", "id"): b"again"}, epoch=1, fresh=True)
    assert (other.get("kind", "id"), other.get("kind", "new")) == (b"replaced", None)
    assert rows.put({("kind", "new"): b"new"}, epoch=1, fresh=True)
    assert other.get("kind", "new") == b"new"


def _check_scan(rows: Rows) -> None:
    """In the order of bytes, whole over many pages, and of that prefix and kind alone."""
    many = [f"{number:05d}" for number in range(2 * limits.keystore_page_rows + 1)]
    odd = ["a", "a/", "a/1", "a/B", "a/b", "a/é", "a0", "b", "A/1", "_/1", "%/1"]
    rows.put({("scan", id_): id_.encode() for id_ in (*reversed(many), *odd)}, epoch=1)
    found = list(rows.scan("scan"))
    assert found == [Row("scan", id_, id_.encode()) for id_ in sorted((*many, *odd), key=str.encode)]
    assert [row.id for row in rows.scan("scan", "a/")] == ["a/", "a/1", "a/B", "a/b", "a/é"]
    assert [row.id for row in rows.scan("scan", "_/")] == ["_/1"]
    assert [row.id for row in rows.scan("scan", "0200")] == ["02000"]
    assert list(rows.scan("sca")) == []


def _check_rewrite(rows: Rows, other: Rows) -> None:
    """What stays in a touched shard is sealed anew, each once; nothing else is."""
    names = [("many", str(number)) for number in range(4_000)]
    rows.put(dict.fromkeys(names, b"old"), epoch=1)
    gone, replaced, dropped = names[0], names[1], next(name for name in names if shard_of(*name) not in _of(names[:2]))
    touched = _of([gone, replaced])
    seen: list[Row] = []

    def reseal(row: Row) -> bytes:
        seen.append(row)
        return b"new " + row.sealed

    shards = {number: b"next %d" % number for number in range(SHARDS)}
    put = {replaced: b"replaced", _added(touched): b"added"}
    rows.rewrite(
        Rewrite(epoch=1, shards=shards, touched=touched, delete=[gone, dropped, ("no", "one")], put=put, reseal=reseal)
    )
    assert other.state() == rows.state(durable=True) == State(2, shards)
    assert (other.get(*gone), other.get(*dropped), other.get(*replaced)) == (None, None, b"replaced")
    assert other.get(*_added(touched)) == b"added"
    stay = [name for name in names if name not in (gone, replaced, dropped)]
    assert sorted(row[:2] for row in seen if row.kind == "many") == sorted(n for n in stay if shard_of(*n) in touched)
    assert all(shard_of(row.kind, row.id) in touched for row in seen)
    for name in stay:
        assert other.get(*name) == (b"new old" if shard_of(*name) in touched else b"old")


def _check_undone(rows: Rows) -> None:
    """What `reseal` raises comes through, and nothing is changed."""
    before, row = rows.state(), rows.get("many", "1")
    failed = False
    try:
        rows.rewrite(Rewrite(epoch=2, shards=_FIRST, touched=_of([("many", "1")]), put={}, reseal=_never))
    except _Refused:
        failed = True
    assert failed
    assert (rows.state(durable=True), rows.get("many", "1")) == (before, row)


def _check_stale(rows: Rows, other: Rows) -> None:
    """Who has missed an epoch writes nothing."""
    for wrong in (1, 3):
        change = Rewrite(epoch=wrong, shards=_FIRST, delete=[("many", "1")], reseal=_never)
        assert _refuses(partial(other.put, {("late", "1"): b""}, epoch=wrong))
        assert _refuses(partial(other.put, {("late", "1"): b""}, epoch=wrong, fresh=True))
        assert _refuses(partial(other.rewrite, change))
    assert rows.get("late", "1") is None
    assert rows.get("many", "1") is not None
    assert rows.state().epoch == 2


def _refuses(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except KeystoreChanged:
        return True
    return False


def _check_race(rows: Rows, other: Rows) -> None:
    """Of two that put the same row at once, one wins, and both read what it wrote."""
    with ThreadPoolExecutor(2) as threads:
        for number in range(_RACES):
            name = ("race", str(number))
            mine, theirs = (
                {name: b"mine", ("race", f"{number}/m"): b""},
                {name: b"theirs", ("race", f"{number}/t"): b""},
            )
            first = threads.submit(rows.put, mine, epoch=2, fresh=True)
            second = threads.submit(other.put, theirs, epoch=2, fresh=True)
            assert first.result() != second.result()
            assert rows.get(*name) == other.get(*name) == (b"mine" if first.result() else b"theirs")
            assert len(list(rows.scan("race", f"{number}/"))) == 1


def _check_durable(connect: Callable[[], Rows]) -> None:
    again = connect()
    assert again.state().epoch == 2
    assert again.get("kin", "did") == b"x" * 100_000
    again.close()


class _Refused(Exception):
    pass


def _never(row: Row) -> bytes:
    raise _Refused(row.id)


def _of(names: list[tuple[str, str]]) -> frozenset[int]:
    return frozenset(shard_of(*name) for name in names)


def _added(touched: frozenset[int]) -> tuple[str, str]:
    """The name of a row that is not there yet, in one of these shards."""
    return next(("added", str(n)) for n in range(100_000) if shard_of("added", str(n)) in touched)
