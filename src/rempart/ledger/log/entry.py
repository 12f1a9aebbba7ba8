"""`encode` and `decode`: entries of the log as RFC 8785 canonical JSON (pure).

Entries hold strings, booleans, integers of magnitude under 2^53, arrays and objects of these, under ASCII keys.
Under these rules an encoder that sorts keys is canonical; a property test holds it to the `rfc8785` package.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

import msgspec

from rempart import limits
from rempart.errors import LedgerCorrupt

VERSION: Final = 1
_INTEGER_MAX: Final = 2**53 - 1  # RFC 7493 section 2.2
_encoder = msgspec.json.Encoder(order="sorted")
_decoder = msgspec.json.Decoder(dict[str, Any])


class Facts(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What verification and recovery read of an entry; absent fields are empty."""

    v: int
    type: str
    time: str
    log: str = ""
    boot: str = ""
    exchange: str = ""
    request: int | None = None
    outcome: str = ""
    body: str = ""
    body_bytes: int = 0
    retention: str = msgspec.field(default="", name="class")
    bucket: str = ""


_facts = msgspec.json.Decoder(Facts)


def encode(fields: Mapping[str, Any]) -> bytes:
    """Canonical bytes. Raises `ValueError` when they are over 65,535."""
    entry = _encoder.encode(fields)
    if len(entry) > limits.entry_bytes_max:
        raise ValueError(f"an entry has at most {limits.entry_bytes_max} bytes, not {len(entry)}")
    return entry


def check(value: Any) -> None:
    """Raises `ValueError` at anything that may not stand in an entry. For what comes from outside the gateway."""
    match value:
        case bool():
            return
        case str():
            value.encode()  # refuses lone surrogates
        case int():
            if abs(value) > _INTEGER_MAX:
                raise ValueError("an integer in an entry has a magnitude under 2^53")
        case Mapping():
            for name, inner in value.items():
                if not (isinstance(name, str) and name.isascii()):
                    raise ValueError("keys of an entry are ASCII")
                check(inner)
        case list() | tuple():
            for inner in value:
                check(inner)
        case _:
            raise ValueError(f"{type(value).__name__} may not stand in an entry")


def decode(entry: bytes) -> dict[str, Any]:
    """Raises `LedgerCorrupt` when it is no canonical entry of a known version."""
    try:
        fields = _decoder.decode(entry)
        check(fields)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise LedgerCorrupt("An entry is not JSON of the kind that entries are.") from error
    if fields.get("v") is True or fields.get("v") != VERSION or _encoder.encode(fields) != entry:
        raise LedgerCorrupt("An entry is not canonical, or of an unknown version.")
    return fields


def facts(entry: bytes) -> Facts:
    """A quick look. Raises `LedgerCorrupt`."""
    try:
        return _facts.decode(entry)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise LedgerCorrupt("An entry cannot be read.") from error


def timestamp(now: float) -> str:
    """`now` in seconds since 1970 as `2026-11-23T17:00:00.123456Z`."""
    second, microsecond = divmod(round(now * 1_000_000), 1_000_000)
    return f"{_second(second)}.{microsecond:06d}Z"


@lru_cache(maxsize=4)
def _second(second: int) -> str:
    """Thousands of entries share one."""
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
