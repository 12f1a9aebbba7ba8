"""`hold`: exchanges that a legal hold keeps readable after their own keys are destroyed (ADR 0003, "Erasure, hold").

`hold/<id>` is the hold's own key (32 bytes) and its description; `held/<hold>/<exchange>` is the exchange's key sealed
under it. So a release destroys one row, however many exchanges were held. The caller has the erasure lock, and decides
who may release.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from typing import Final

import msgspec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from rempart import limits
from rempart.errors import KeystoreError, NotFound
from rempart.ledger.keys.epoch import seal, unseal
from rempart.ledger.keys.keystore import KEY_BYTES, Keystore

_HOLD: Final = "hold"
_HELD: Final = "held"
_ID: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")


class Hold(msgspec.Struct, frozen=True, kw_only=True):
    """What is held and why; no exchange's content and no person's name belongs in it."""

    id: str
    """A short word: a-z, 0-9 and -, at most 64."""
    reason: str
    """The ground, such as the file number of the case."""
    by: str
    """Pseudonym of who began it."""
    began: str
    """UTC, as entries have it."""
    scope: dict[str, str] = {}
    """What it covers, as field to value."""
    released_by: tuple[str, ...] = ()
    """Pseudonyms of those who have agreed to its release."""


def hold(keystore: Keystore, described: Hold) -> None:
    """Begin it, or describe it anew: its key and what it holds stay. Raises `KeystoreError`."""
    if not _ID.fullmatch(described.id):
        raise KeystoreError(f"{described.id!r} is no id of a hold.", hint="Use a short word of a-z, 0-9 and -.")
    description = msgspec.json.encode(described)
    if len(description) > limits.hold_text_chars_max:
        raise KeystoreError("The hold's description is too long.", hint=f"At most {limits.hold_text_chars_max} bytes.")
    known = keystore.get(_HOLD, described.id)
    if known is None and sum(1 for _ in keystore.ids(_HOLD)) >= limits.holds_max:
        raise KeystoreError(f"There are {limits.holds_max} holds already.", hint="Release one that is over.")
    key = secrets.token_bytes(KEY_BYTES) if known is None else known[:KEY_BYTES]
    keystore.put({(_HOLD, described.id): key + description})


def holds(keystore: Keystore) -> list[Hold]:
    """All that are in force, by id."""
    return [_describe(row) for _, row in keystore.scan(_HOLD)]


def wrap(keystore: Keystore, hold_id: str, keys: Mapping[str, bytes]) -> None:
    """Hold these exchanges: id (32 hex) to the key their bodies' keys are expanded from (32 bytes). Again is no error.

    Durable when it returns; in batches, so a crash leaves some of them held, and the same call does the rest. Raises
    `NotFound` when there is no such hold, `KeystoreError`.
    """
    cipher = AESGCM(_row(keystore, hold_id)[:KEY_BYTES])
    names = list(keys)
    for begin in range(0, len(names), limits.keystore_page_rows):
        batch = names[begin : begin + limits.keystore_page_rows]
        keystore.put(
            {(_HELD, f"{hold_id}/{name}"): seal(cipher, f"{hold_id}/{name}".encode(), keys[name]) for name in batch}
        )


def held_key(keystore: Keystore, exchange: str) -> bytes | None:
    """The key of an exchange, when a hold has it. A point reading for each hold in force. Raises `KeystoreError`."""
    for hold_id, row in keystore.scan(_HOLD):
        name = f"{hold_id}/{exchange}"
        wrapped = keystore.get(_HELD, name)
        if wrapped is not None:
            return unseal(AESGCM(row[:KEY_BYTES]), name.encode(), wrapped)
    return None


def held(keystore: Keystore, hold_id: str) -> list[str]:
    """Ids of the exchanges that it holds."""
    return [name.removeprefix(f"{hold_id}/") for name in keystore.ids(_HELD, f"{hold_id}/")]


def release(keystore: Keystore, hold_id: str) -> int:
    """Destroy the hold's key, and remove what only it opened. The epoch that holds then.

    Raises `NotFound` when there is no such hold, `KeystoreError`.
    """
    _row(keystore, hold_id)
    wraps = [(_HELD, name) for name in keystore.ids(_HELD, f"{hold_id}/")]
    return keystore.destroy([(_HOLD, hold_id)], drop=wraps)


def _row(keystore: Keystore, hold_id: str) -> bytes:
    row = keystore.get(_HOLD, hold_id)
    if row is None:
        raise NotFound(f"There is no hold {hold_id}.", hint="Look at the holds that are in force.")
    return row


def _describe(row: bytes) -> Hold:
    try:
        return msgspec.json.decode(row[KEY_BYTES:], type=Hold)
    except msgspec.MsgspecError as error:
        raise KeystoreError(f"A hold is damaged: {error}.", hint="Restore keys/ from its backup.") from error
