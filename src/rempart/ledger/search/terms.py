"""`field_terms` and `TermKeys`: what stands in the index in place of words, and under which keys (pure).

A term is a word, or a field's name, a colon and its value: a word has no colon. Terms are named by BLAKE2b (RFC 7693)
keyed for the partition, 64 bits: two words of one partition share a name with a chance of one in 10^7 among a
million words, and then a search finds an entry too many.

    index key = HKDF-SHA256(bucket key, info "rempart/v1/index")      (RFC 5869)
    term key  = HKDF-Expand(index key, "rempart/v1/index/terms")
    run key   = HKDF-SHA256(salt = the run's 32 random bytes, index key, info "rempart/v1/index/run")
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Any, Final

from rempart.ledger.keys.body import expand

ALL: Final = "all:"
"""The term of every entry."""
_DAY: Final = timedelta(days=1)
_HOUR: Final = timedelta(hours=1)


class TermKeys:
    """Of one partition."""

    __slots__ = ("_index_key", "_term_key")

    def __init__(self, bucket_key: bytes) -> None:
        self._index_key = expand(hmac.digest(b"", bucket_key, "sha256"), b"rempart/v1/index")
        self._term_key = expand(self._index_key, b"rempart/v1/index/terms")

    def run_key(self, salt: bytes) -> bytes:
        """32 bytes. `salt` is fresh for each run, so that a nonce may be the place of a block."""
        return expand(hmac.digest(salt, self._index_key, "sha256"), b"rempart/v1/index/run")

    def name(self, term: str) -> int:
        """Under 2^64."""
        return int.from_bytes(blake2b(term.encode(), digest_size=8, key=self._term_key).digest(), "little")

    def namer(self) -> Callable[[str], int]:
        """`name` for many: without the look-ups."""
        key, hash_, number = self._term_key, blake2b, int.from_bytes
        return lambda term: number(hash_(term.encode(), digest_size=8, key=key).digest(), "little")


def field_terms(fields: Mapping[str, Any]) -> list[str]:
    """Of the fields of an entry: actor, model, outcome, finding (one or several), day and hour."""
    found = [ALL]
    for name in ("actor", "model", "outcome", "finding"):
        value = fields.get(name)
        for one in value if isinstance(value, list | tuple) else (value,):
            if one:
                found.append(field_term(name, str(one)))
    time = str(fields.get("time", ""))
    if len(time) >= 13:
        found += (f"day:{time[:10]}", f"hour:{time[:13]}")
    return found


def field_term(name: str, value: str) -> str:
    return f"{name}:{value.casefold()}"


def span(bucket: str) -> tuple[datetime, datetime]:
    """From when until when entries of a bucket may be: an exchange may end on the next day, a clock may be set back."""
    day = datetime.fromisoformat(bucket).replace(tzinfo=UTC)
    return day - _DAY, day + 2 * _DAY


def time_terms(bucket: str, after: datetime | None, before: datetime | None) -> list[str] | None:
    """Terms of which an entry in range has one; None when the whole bucket is in range, empty when nothing is."""
    first, last = span(bucket)
    if (after is None or after <= first) and (before is None or before >= last):
        return None
    return list(_between(max(first, after or first), min(last, before or last)))


def _between(first: datetime, last: datetime) -> Iterator[str]:
    """Whole days as days, hours at the edges."""
    while first < last:
        if first.hour == 0 and first + _DAY <= last:
            yield f"day:{first:%Y-%m-%d}"
            first += _DAY
        else:
            yield f"hour:{first:%Y-%m-%dT%H}"
            first += _HOUR
