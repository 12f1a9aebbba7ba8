"""What the ledger takes and what it answers (values)."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec


class Receipt(msgspec.Struct, frozen=True):
    """The entry is durable: it survives a power cut, and its index is never given to another."""

    index: int
    leaf_hash: bytes
    """32 bytes, SHA-256(0x00 ‖ entry) as in RFC 6962 section 2.1."""


class Traced(msgspec.Struct, frozen=True):
    """One entry of a recent exchange."""

    index: int
    type: str
    leaf_hash: bytes


class Trace(msgspec.Struct, frozen=True):
    """What a recent exchange became in the log."""

    key: str
    """Id of the API key that asked."""
    entries: tuple[Traced, ...]


class LogState(msgspec.Struct, frozen=True, kw_only=True):
    """Where the log stands, for `/readyz`, `/metrics` and the page."""

    origin: str
    entries: int
    """Entries acknowledged."""
    tree_size: int
    """Entries under the last signed checkpoint."""
    root: bytes
    """32 bytes."""
    lag_s: float
    """Age of the oldest acknowledged entry that no checkpoint covers yet."""
    syncs: int
    """fdatasync calls since the start."""
    failure: str
    """Why nothing is recorded any more; empty while all is well."""


class Timestamped(msgspec.Struct, frozen=True, kw_only=True):
    """What the time-stamping authority did, for `/metrics`."""

    size: int = 0
    """Entries under the newest checkpoint that it stamped; 0: none yet."""
    time: float = 0.0
    """When, in seconds since 1970, by the authority's clock."""
    stamps: int = 0
    """Since the start."""
    failures: int = 0
    """Times since the start that no stamp came, or none that holds."""


class Witnessed(msgspec.Struct, frozen=True, kw_only=True):
    """How the witnesses stand to the log, for `/readyz` and `/metrics`."""

    size: int = 0
    """Entries under the newest checkpoint that met the quorum."""
    failures: Mapping[str, int] = {}
    """Witness -> how often it did not cosign since the start."""
    alarm: str = ""
    """What a witness has seen that this log is not; empty while all is well."""
