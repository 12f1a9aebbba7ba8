"""`begin`: what is about to be destroyed stands in a row of the keystore first, and until its certificate is durable.

So a crash between the two is finished at the next start (ADR 0003, "Erasure, hold, retention"). A row names people by
pseudonym alone.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from rempart.errors import KeystoreError
from rempart.ledger.erasing.scan import Wanted
from rempart.ledger.keys.keystore import Keystore

_KIND: Final = "pending"


class Decided(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to be done, at whose word, and what was counted before."""

    verb: Literal["erase", "expire", "hold", "agree", "release"]
    wanted: Wanted
    ground: str
    """Of an expiry the basis of its class."""
    by: str
    """Pseudonym of who asked, or `operator`."""
    role: str
    hold: str = ""
    """Its id, for what concerns one."""
    counts: dict[str, int] = {}
    """Counted before anything was destroyed."""
    kept: dict[str, int] = {}
    """Hold -> how many of the exchanges it keeps."""


class Pending(Decided, frozen=True, kw_only=True):
    """What was decided, once it stands in the keystore: all that its certificate will say but the epoch."""

    id: str
    """32 hex; the certificate bears it, so that it is written once."""
    first: int
    """Entries that the log had: the certificate is not among them."""
    began: str
    """UTC, as entries have it."""


def begin(keystore: Keystore, pending: Pending) -> None:
    """Durable when it returns. Raises `KeystoreError`."""
    keystore.put({(_KIND, pending.id): msgspec.json.encode(pending)})


def unfinished(keystore: Keystore) -> list[Pending]:
    """In the order in which they began. Raises `KeystoreError` when one cannot be read."""
    try:
        found = [msgspec.json.decode(row, type=Pending) for _, row in keystore.scan(_KIND)]
    except msgspec.MsgspecError as error:
        raise KeystoreError(f"A pending erasure is damaged: {error}.", hint="Restore keys/ from its backup.") from error
    return sorted(found, key=lambda one: (one.first, one.began, one.id))


def end(keystore: Keystore, pending: Pending) -> None:
    """Its certificate is durable. Raises `KeystoreError`."""
    keystore.destroy([], drop=[(_KIND, pending.id)])
