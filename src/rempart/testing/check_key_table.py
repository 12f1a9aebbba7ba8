"""`check_key_table`: the conformance suite of the port `identity.keys.Keys`, for every adapter."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import msgspec

from rempart.errors import NotFound
from rempart.identity.caller import Limits
from rempart.identity.keys import KeyRow, Keys

_MAC = bytes(range(32))
_CHANGES = 20


def check_key_table(connect: Callable[[], Keys]) -> None:
    """Raises `AssertionError`. Each `connect` opens the same place, which holds nothing at first."""
    table, other = connect(), connect()
    try:
        _check_put(table, other)
        _check_change(table, other)
        _check_raises(table, other)
    finally:
        table.close()
        other.close()
    _check_together(connect)


def _check_put(table: Keys, other: Keys) -> None:
    """All comes back, through another connection at once, oldest first and each in its place."""
    assert table.all() == other.all() == []
    rows = [_row(id_) for id_ in ("bbbbbbbbbbbb", "aaaaaaaaaaaa")]
    for row in rows:
        table.put(row, _MAC, "someone")
    assert other.all() == [(row, _MAC) for row in rows]
    changed = msgspec.structs.replace(rows[0], name="another", models=None)
    other.put(changed, _MAC)
    assert table.get(rows[0].id) == (changed, _MAC)
    assert [row.id for row, _ in table.all()] == [row.id for row in rows]


def _check_change(table: Keys, other: Keys) -> None:
    row, mac = table.change("aaaaaaaaaaaa", lambda row: msgspec.structs.replace(row, revoked=7), forget=True)
    assert (row.revoked, mac) == (7, _MAC)
    assert other.get("aaaaaaaaaaaa") == (row, _MAC)


def _check_raises(table: Keys, other: Keys) -> None:
    """What is not there is said so, and what an edit raises changes nothing."""
    before = other.all()
    for attempt in (lambda: table.get("none"), lambda: table.change("none", lambda row: row)):
        assert _raises(attempt, NotFound)

    def refuse(row: KeyRow) -> KeyRow:
        raise _Refused

    assert _raises(lambda: table.change("aaaaaaaaaaaa", refuse), _Refused)
    assert table.all() == other.all() == before


def _check_together(connect: Callable[[], Keys]) -> None:
    """Of two that change one row at once, neither's change is lost."""

    def count_up(_: int) -> None:
        table = connect()
        for _ in range(_CHANGES):
            table.change("bbbbbbbbbbbb", lambda row: msgspec.structs.replace(row, created=row.created + 1))
        table.close()

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(count_up, range(2)))
    table = connect()
    assert table.get("bbbbbbbbbbbb")[0].created == 10 + 2 * _CHANGES
    table.close()


def _row(id_: str) -> KeyRow:
    limits = Limits(requests_per_minute=2, tokens_per_day=3)
    return KeyRow(
        id=id_, name="étude", role="user", actor="a_1", subject="s_1", models=["m"], limits=limits, created=10
    )


class _Refused(Exception):
    pass


def _raises(attempt: Callable[[], object], kind: type[Exception]) -> bool:
    try:
        attempt()
    except kind:
        return True
    return False
