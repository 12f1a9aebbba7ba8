"""`RetentionClass`: how long exchanges of one kind are kept, on which ground, and what may be erased before (pure).

A class is fixed when an exchange begins; its key is that of the class and the UTC day (`bucket/<class>/<day>`). When
the bucket expires the key is destroyed. What the configuration says of a class holds for its old buckets too.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from typing import Protocol

import msgspec


class Values(Protocol):
    """One `[retention.<class>]` as the configuration holds it."""

    @property
    def days(self) -> int: ...
    @property
    def basis(self) -> str: ...
    @property
    def worm(self) -> bool: ...
    @property
    def erase_with_actor(self) -> bool: ...


class RetentionClass(msgspec.Struct, frozen=True, kw_only=True):
    """One class."""

    name: str
    days: int
    """Whole days that a bucket is kept after its own day."""
    basis: str
    """The clause that asks for it, or allows it."""
    worm: bool = False
    """Nothing is erased before the end, whoever asks."""
    erase_with_actor: bool = False
    """Bodies go too when the person who asked is erased, not only those about whom was asked."""

    def last_day(self, bucket_day: str) -> date:
        """The last UTC day on which the bucket is kept. `bucket_day`: `2026-11-23`."""
        return date.fromisoformat(bucket_day) + timedelta(self.days)

    def expired(self, bucket_day: str, today: date) -> bool:
        """Whether the bucket's time is over."""
        return today > self.last_day(bucket_day)

    def refusal(self, bucket_day: str, today: date) -> str:
        """Why nothing of that bucket may be erased today; empty when it may."""
        if not self.worm or self.expired(bucket_day, today):
            return ""
        until = self.last_day(bucket_day).isoformat()
        return f"Exchanges of {bucket_day} in class {self.name} are kept unchanged until {until}: {self.basis}"


def parse(configured: Mapping[str, Values]) -> dict[str, RetentionClass]:
    """All classes by name; the configuration has checked their values."""
    return {
        name: RetentionClass(
            name=name, days=one.days, basis=one.basis, worm=one.worm, erase_with_actor=one.erase_with_actor
        )
        for name, one in configured.items()
    }
