"""`rempart.ledger.keys.retention`: a bucket is kept its whole days, and a worm class says why nothing may go before."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rempart.config.settings import Settings
from rempart.ledger.keys.retention import RetentionClass, parse

BASIS = "45 CFR 164.316(b)(2)(i)"


def kept(days: int, worm: bool = False) -> RetentionClass:
    return RetentionClass(name="medical", days=days, basis=BASIS, worm=worm)


@pytest.mark.parametrize(
    ("days", "today", "expired"),
    [
        (1, "2026-11-23", False),
        (1, "2026-11-24", False),
        (1, "2026-11-25", True),
        (365, "2027-11-23", False),
        (365, "2027-11-24", True),
        (1, "2020-01-01", False),  # a clock that stands behind erases nothing
    ],
)
def test_a_bucket_is_kept_its_days_after_its_own(days: int, today: str, expired: bool) -> None:
    assert kept(days).expired("2026-11-23", date.fromisoformat(today)) is expired


def test_days_of_leap_years_are_days() -> None:
    assert kept(1).last_day("2028-02-28") == date(2028, 2, 29)
    assert kept(2_192).last_day("2026-11-23") == date(2032, 11, 23)


def test_a_worm_class_refuses_until_the_end_and_says_why() -> None:
    reason = kept(10, worm=True).refusal("2026-11-23", date(2026, 12, 3))
    for word in ("2026-11-23", "medical", "2026-12-03", BASIS):
        assert word in reason
    assert kept(10, worm=True).refusal("2026-11-23", date(2026, 12, 4)) == ""


def test_another_class_refuses_nothing() -> None:
    assert kept(10).refusal("2026-11-23", date(2026, 11, 23)) == ""


@given(st.dates(date(1970, 1, 1), date(2200, 1, 1)), st.integers(1, 36_525), st.integers(-400, 40_000))
def test_what_a_worm_class_refuses_has_not_expired(bucket: date, days: int, after: int) -> None:
    one, today = kept(days, worm=True), bucket + timedelta(after)
    assert bool(one.refusal(bucket.isoformat(), today)) is not one.expired(bucket.isoformat(), today)
    assert one.expired(bucket.isoformat(), today) is (after > days)


def test_the_configurations_classes_are_parsed() -> None:
    standard, audit = parse(Settings().retention).values()
    assert (audit.name, audit.days, audit.worm, audit.erase_with_actor) == ("audit", 365, False, False)
    assert (standard.name, standard.days, standard.worm, standard.erase_with_actor) == ("standard", 365, False, False)
    assert "5(1)(e)" in standard.basis
