"""`Said.texts`: what was said in an exchange, for those who have the keys, of many exchanges in any order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from rempart.errors import KeystoreError, LedgerCorrupt
from rempart.ledger.keys import body as bodies
from rempart.ledger.keys.keystore import Keystore
from rempart.ledger.keys.recalling import exchange_key
from rempart.ledger.log import entry as entries
from rempart.ledger.reading.entries import EntryReader
from rempart.ledger.reading.sealed import SealedBodies
from rempart.ledger.search.texts import texts


class Said:
    """Of the ledger `<data>/ledger`. Keys are asked for anew each time: a destroyed one is seen at once."""

    def __init__(self, ledger: Path, keystore: Keystore) -> None:
        self._bodies = SealedBodies(ledger)
        self._keystore = keystore

    def texts(self, reader: EntryReader, index: int) -> list[str] | None:
        """Of a response and of its request. None when the response cannot be read any more.

        Raises `KeystoreError` only when the keystore itself fails.
        """
        fields = entries.decode(reader.read(index))
        answered = self.content(index, fields)
        if answered is None:
            return None
        found = texts(answered)
        request = fields.get("request")
        if isinstance(request, int) and 0 <= request < index:
            asked = self.content(request, entries.decode(reader.read(request)))
            found = [*texts(asked), *found]
        return found

    def content(self, index: int, fields: dict[str, Any]) -> Any:
        """What an entry's body holds, decoded; None when there is none, or none that can be read any more."""
        if not fields.get("body"):
            return None
        key = self._key(fields)
        try:
            sealed = self._bodies.read(index, str(fields["class"]), str(fields["bucket"]))
            if sealed is None or key is None:
                return None
            return msgspec.json.decode(_unseal(key, fields, sealed).content)
        except (LedgerCorrupt, msgspec.DecodeError):
            return None  # one damaged body does not hide the others; `fsck` names it

    def let_go(self) -> None:
        """Of files that are gone: their room on the disk is free again."""
        self._bodies.let_go()

    def close(self) -> None:
        self._bodies.close()

    def _key(self, fields: dict[str, Any]) -> bytes | None:
        try:
            return exchange_key(self._keystore, fields)
        except KeystoreError:
            # Destroyed, or the keystore fails? What fails, fails here again, and is not taken for destroyed.
            for kind, id_ in _rows(fields):
                self._keystore.get(kind, id_)
            return None


def _rows(fields: dict[str, Any]) -> list[tuple[str, str]]:
    people = [("subject", str(name)) for name in fields.get("subjects") or ()]
    return [("seed", str(fields["seed"])), ("bucket", f"{fields['class']}/{fields['bucket']}"), *people]


def _unseal(key: bytes, fields: dict[str, Any], sealed: bytes) -> bodies.Revealed:
    exchange = bytes.fromhex(fields["exchange"])
    label = bodies.label(str(fields["type"]))
    return bodies.unseal(bodies.expand(key, label), exchange, label, sealed, fields["commitment"])
