"""`exchange_key`: the key of an exchange from the fields of an entry of it: its own, or the one that a hold keeps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rempart.errors import KeystoreError
from rempart.ledger.keys.holds import held_key
from rempart.ledger.keys.keystore import Keystore
from rempart.ledger.keys.vault import recall


def exchange_key(keystore: Keystore, fields: Mapping[str, Any]) -> bytes:
    """32 bytes, from which the keys of its bodies are expanded. Raises `KeystoreError` when it was destroyed."""
    exchange = str(fields["exchange"])
    try:
        return recall(keystore, dict(fields)).exchange_key(bytes.fromhex(exchange))
    except KeystoreError:
        held = held_key(keystore, exchange)
        if held is None:
            raise
        return held
