"""`period`: what there is to review since the last review: 45 CFR 164.308(a)(1)(ii)(D), NIS2 2024/2690 section 3.2.4.

The last review is the newest entry `review`. A small file beside the log remembers when that was, for `/metrics` alone,
which must not read a whole log. It is not in backups: until the next review the days since the log began are told.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec

from rempart.errors import UsageError
from rempart.ledger.log import entry as entries
from rempart.ledger.reading.entries import EntryReader
from rempart.ledger.reading.reconcile import reconcile
from rempart.ledger.store.files import replace_durably

_REVIEW: Final = b'"type":"review"'
_REMEMBERED: Final = "reviewed"
_SECONDS_A_DAY: Final = 86_400


class Period(msgspec.Struct, frozen=True, kw_only=True):
    """What a review covers, as its entry states it."""

    first: int
    """Index of the first entry since the last review."""
    last: int
    began: str
    """Time of the first entry."""
    ended: str
    requests: int
    outcomes: dict[str, int]
    """Responses by outcome."""
    events: dict[str, int]
    """Other entries by type: keys, settings, erasures, backups, …"""
    gaps: dict[str, int]
    """What `reconcile` names in this period, by kind."""
    alarms: dict[str, int]
    """`unauthenticated` requests, exchanges that were `lost`, starts with a `clock` behind."""


class Review(msgspec.Struct, frozen=True, kw_only=True):
    """One that is in the ledger."""

    index: int
    time: str
    by: str
    """Pseudonym."""
    first: int
    last: int
    gaps: dict[str, int]
    alarms: dict[str, int]


def period(ledger: Path) -> Period:
    """Since the last review, up to now. `ledger` is `<data>/ledger`. Raises `UsageError` when nothing came since, and
    `LedgerCorrupt`."""
    reader = EntryReader(ledger)
    found = reviews(ledger)
    first = found[0].index + 1 if found else 0
    last = reader.count - 1
    if last < first:
        if found:
            raise UsageError(
                f"Nothing came since the last review, entry {found[0].index}.", hint="See 'rempart ledger reviews'."
            )
        raise UsageError("There is nothing to review yet.", hint="Start the server once.")
    counts, alarms, outcomes = Counter[str](), Counter[str](), Counter[str]()
    for _, entry in reader.forward(first):
        facts = entries.facts(entry)
        if facts.type == "response":
            outcomes[facts.outcome] += 1
        else:
            counts[facts.type] += 1
        alarms.update(_alarms(facts, entry))
    requests = counts.pop("request", 0)
    return Period(
        first=first,
        last=last,
        began=entries.facts(reader.read(first)).time,
        ended=entries.facts(reader.read(last)).time,
        requests=requests,
        outcomes=dict(sorted(outcomes.items())),
        events=dict(sorted(counts.items())),
        gaps=dict(sorted(Counter(gap.kind for gap in reconcile(ledger).gaps if first <= gap.index <= last).items())),
        alarms=dict(sorted(alarms.items())),
    )


def reviews(ledger: Path) -> list[Review]:
    """Newest first. Raises `LedgerCorrupt`."""
    found = [
        msgspec.convert({"index": index, **entries.decode(entry)}, Review)
        for index, entry in EntryReader(ledger).newest_first()
        if _REVIEW in entry and entries.facts(entry).type == "review"
    ]
    return found


def due(ledger: Path, found: list[Review], days: int) -> str:
    """When the next review is due, as a UTC day; `found` is what `reviews` gave."""
    since = found[0].time if found else _began(ledger)
    return str((_parse(since) + timedelta(days=days)).date())


def remember(ledger: Path, time: str) -> None:
    """The last review was then."""
    replace_durably({ledger / _REMEMBERED: f"{time}\n".encode()})


def days_since(ledger: Path, now: float) -> float:
    """Days since the last review that is remembered, else since the log began; `now` in seconds since 1970."""
    since = ""
    with contextlib.suppress(FileNotFoundError):
        since = (ledger / _REMEMBERED).read_text().strip()
    began = _parse(since or _began(ledger)).timestamp()
    return max(now - began, 0.0) / _SECONDS_A_DAY


def _alarms(facts: entries.Facts, entry: bytes) -> dict[str, int]:
    if facts.type == "refusals":
        counts: dict[str, Any] = entries.decode(entry)["counts"]
        return {"unauthenticated": sum(counts.values())}
    if facts.type == "response" and facts.outcome == "lost":
        return {"lost": 1}
    if facts.type == "start" and entries.decode(entry).get("clock_behind_s"):
        return {"clock": 1}
    return {}


def _began(ledger: Path) -> str:
    reader = EntryReader(ledger)
    return entries.facts(reader.read(0)).time if reader.count else entries.timestamp(datetime.now(UTC).timestamp())


def _parse(time: str) -> datetime:
    return datetime.strptime(time, "%Y-%m-%dT%H:%M:%S.%f%z")
