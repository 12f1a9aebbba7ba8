"""`Rows`: the port to where a keystore's sealed rows are kept, and the contract of every adapter (values only).

An adapter never sees a key: all that it holds is sealed (ADR 0003, "Keystore"). What any method returned from is
durable: it is there after a power cut of the adapter's machine. Every failure of the database is a `KeystoreError`.
An adapter is used by one thread at a time; any number of processes may share what is behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from hashlib import sha256
from typing import Final, NamedTuple, Protocol

import msgspec

from rempart.errors import KeystoreChanged

SHARDS: Final = 256


class Name(NamedTuple):
    """What a row is found by."""

    kind: str
    id: str


class Row(NamedTuple):
    """One row as it is kept."""

    kind: str
    id: str
    sealed: bytes


class State(msgspec.Struct, frozen=True):
    """One reading of what every row hangs on."""

    epoch: int
    """How often keys were destroyed; 0 where none was ever stored."""
    shards: dict[int, bytes]
    """Number (0 to 255) to sealed key; empty where no keystore was begun."""


class Rewrite(msgspec.Struct, frozen=True, kw_only=True):
    """The one transaction of a destroy."""

    epoch: int
    """The epoch it begins from; the next one holds after it."""
    shards: Mapping[int, bytes]
    """All of them, sealed anew."""
    touched: Collection[int] = ()
    """Numbers of the shards whose key itself is new: every row of theirs that stays is sealed anew."""
    delete: Collection[tuple[str, str]] = ()
    put: Mapping[tuple[str, str], bytes] = {}
    """Rows of touched shards, added or replaced, sealed under the new keys."""
    reseal: Callable[[Row], bytes]
    """A row of a touched shard that stays -> its new sealed form. What it raises undoes everything."""


class Rows(Protocol):
    """Sealed rows by kind and id, 256 sealed shard keys, and an epoch."""

    def state(self, *, durable: bool = False) -> State:
        """Epoch and shards, read at one moment.

        `durable`: waits for a `rewrite` that is under way, its outcome unknown to the caller or not, and makes sure
        that what it returns still holds after a power cut.
        """
        ...

    def get(self, kind: str, id_: str) -> bytes | None:
        """The sealed row, or None."""
        ...

    def put(self, rows: Mapping[tuple[str, str], bytes], *, epoch: int, fresh: bool = False) -> bool:
        """Add or replace all, or none of them.

        `fresh`: add all when none of them exists, else change nothing and return False: of two callers that put the
        same row at once, one gets True. Raises `KeystoreChanged`, with nothing written, when the epoch is another: a
        row sealed under a key that was destroyed would be lost.
        """
        ...

    def scan(self, kind: str, prefix: str = "") -> Iterator[Row]:
        """Rows of a kind whose id begins with `prefix`, by id in the order of its UTF-8 bytes, a page at a time.

        Rows put or deleted meanwhile may be seen or not.
        """
        ...

    def rewrite(self, change: Rewrite) -> None:
        """All of it, or nothing: delete; seal what stays in the touched shards anew; put; replace all shards; count up.

        No row can be put between the reading of what is sealed anew and the end. Raises `KeystoreChanged`, with
        nothing changed, when the epoch is another. After any other error the outcome is unknown until
        `state(durable=True)` has told it.
        """
        ...

    def close(self) -> None: ...


def full_name(kind: str, id_: str) -> bytes:
    """What a row is sealed for (its AAD): a row moved to another name does not open."""
    return f"{kind}/{id_}".encode()


def shard_of(kind: str, id_: str) -> int:
    """Which shard key seals it (ADR 0001, "Keys")."""
    return sha256(full_name(kind, id_)).digest()[0]


def require_epoch(found: int, expected: int) -> None:
    """What `put` and `rewrite` check inside their transaction. Raises `KeystoreChanged`."""
    if found != expected:
        raise KeystoreChanged(
            f"The keystore is at epoch {found}, this was made for {expected}: another process destroyed keys.",
            hint="Try again: the keys are read anew.",
        )
