"""`rempart.identity.issue`: a sensible order becomes a key and its row; any other is `UsageError`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rempart import limits
from rempart.errors import UsageError
from rempart.identity.apikey import parse
from rempart.identity.caller import Limits
from rempart.identity.issue import SECRET_RANDOM_BYTES, KeyOrder, check, issue
from rempart.identity.keys import KeyTable

_DAY_S = 86_400


@given(st.binary(min_size=SECRET_RANDOM_BYTES, max_size=SECRET_RANDOM_BYTES))
def test_any_randomness_makes_a_key_that_can_be_read(random: bytes) -> None:
    key, row = issue(KeyOrder(name="a"), actor="a_1", subject="", random=random, now=0)
    assert parse(key.text()) == key
    assert row.id == key.id


def test_the_row_says_what_was_ordered() -> None:
    order = KeyOrder(
        name="nightly",
        role="auditor",
        owner="Ada",
        models=["guide"],
        requests_per_minute=2,
        tokens_per_day=3,
        expires_days=4,
        trust_subject_header=True,
    )
    key, row = issue(order, actor="a_1", subject="s_1", random=bytes(SECRET_RANDOM_BYTES), now=100)
    assert (row.id, row.name, row.role, row.actor, row.subject) == (key.id, "nightly", "auditor", "a_1", "s_1")
    assert (row.created, row.expires, row.revoked) == (100, 100 + 4 * _DAY_S, 0)
    assert row.models == ["guide"]
    assert row.limits == Limits(requests_per_minute=2, tokens_per_day=3)
    assert row.trust_subject_header


def test_the_owner_in_clear_is_not_in_the_row() -> None:
    order = KeyOrder(name="nightly", owner="Ada Lovelace")
    _, row = issue(order, actor="a_1", subject="s_1", random=bytes(SECRET_RANDOM_BYTES), now=0)
    assert "Ada" not in repr(row)


def test_a_key_without_days_never_expires() -> None:
    _, row = issue(KeyOrder(name="a"), actor="a", subject="", random=bytes(SECRET_RANDOM_BYTES), now=100)
    assert row.expires == 0


@pytest.mark.parametrize(
    ("order", "named"),
    [
        ({"name": ""}, "name"),
        ({"name": "x" * (limits.key_name_chars_max + 1)}, "name"),
        ({"name": "two\nlines"}, "name"),
        ({"name": "a\x1b[31m"}, "name"),
        ({"name": "a", "role": "root"}, "root"),
        ({"name": "a", "role": ""}, "role"),
        ({"name": "a", "requests_per_minute": 0}, "requests_per_minute"),
        ({"name": "a", "requests_per_minute": -1}, "requests_per_minute"),
        ({"name": "a", "tokens_per_day": 0}, "tokens_per_day"),
        ({"name": "a", "tokens_per_day": 2**53 + 1}, "tokens_per_day"),
        ({"name": "a", "expires_days": 0}, "expires_days"),
        ({"name": "a", "expires_days": -7}, "expires_days"),
        ({"name": "a", "owner": "x" * (limits.subject_chars_max + 1)}, "owner"),
    ],
)
def test_an_order_that_makes_no_sense_is_wrong_use(order: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError, match=named) as caught:
        check(KeyOrder(**order))
    assert caught.value.hint
    with pytest.raises(UsageError):
        issue(KeyOrder(**order), actor="a", subject="", random=bytes(SECRET_RANDOM_BYTES), now=0)


def test_the_longest_name_and_owner_are_taken() -> None:
    check(KeyOrder(name="x" * limits.key_name_chars_max, owner="y" * limits.subject_chars_max))


def test_an_expiry_that_is_taken_can_be_kept(tmp_path: Path) -> None:
    """However far away: what `check` lets through must fit in the table and the ledger (integers below 2^53)."""
    order = KeyOrder(name="a", expires_days=2**53)
    try:
        key, row = issue(order, actor="a", subject="", random=bytes(SECRET_RANDOM_BYTES), now=1_700_000_000)
    except UsageError:
        return
    assert row.expires <= 2**53
    KeyTable(tmp_path / "state.db").put(row, key.mac(b"pepper"))
