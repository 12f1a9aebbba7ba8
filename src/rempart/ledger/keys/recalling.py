"""`exchange_key`: the key of an exchange from the fields of an entry of it: its own, or the one that a hold keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from rempart.errors import KeystoreError
from rempart.ledger.keys.body import extract
from rempart.ledger.keys.ggm import KeyTree, Node
from rempart.ledger.keys.holds import held_key
from rempart.ledger.keys.keystore import Keystore

_nodes = msgspec.json.Decoder(list[tuple[str, str]])


class RecordKeys(msgspec.Struct, frozen=True):
    """The keys of one exchange, and how its entries name them."""

    seed: str
    leaf: int
    record_key: bytes
    bucket: str
    """UTC day."""
    bucket_key: bytes
    subjects: tuple[str, ...]
    """Pseudonyms, sorted."""
    subject_keys: tuple[bytes, ...]
    """In the same order."""

    def exchange_key(self, exchange: bytes) -> bytes:
        """What the keys of the exchange's bodies are expanded from; `exchange` is the id's 16 bytes."""
        return extract(exchange, self.record_key, self.bucket_key, self.subject_keys)


def encode_nodes(nodes: Sequence[Node]) -> bytes:
    """The row of a seed."""
    return msgspec.json.encode([(node.prefix, node.key.hex()) for node in nodes])


def decode_nodes(row: bytes) -> list[Node]:
    return [Node(prefix, bytes.fromhex(key)) for prefix, key in _nodes.decode(row)]


def recall(keystore: Keystore, entry: dict[str, object]) -> RecordKeys:
    """The keys of an exchange from the fields of one of its entries. Raises `KeystoreError` when one was destroyed."""
    seed, leaf = str(entry["seed"]), int(str(entry["leaf"]))
    row = keystore.get("seed", seed)
    if row is None:
        raise KeystoreError(f"The seed {seed} was destroyed, or is of another keystore.")
    retention, bucket = str(entry["class"]), str(entry["bucket"])
    bucket_key = keystore.get("bucket", f"{retention}/{bucket}")
    if bucket_key is None:
        raise KeystoreError(f"The key of {retention}/{bucket} was destroyed: its time is over.")
    named = entry.get("subjects") or []
    assert isinstance(named, list)
    names = tuple(str(name) for name in named)
    keys = tuple(keystore.subject_key(name) for name in names)
    return RecordKeys(seed, leaf, KeyTree(decode_nodes(row)).leaf(leaf), bucket, bucket_key, names, keys)


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
