"""`close_lost`: an exchange that a crash cut off gets its response, with what was written of it."""

from __future__ import annotations

from typing import Final

import msgspec

from rempart.errors import KeystoreError
from rempart.ledger.keys.keystore import Keystore
from rempart.ledger.keys.recalling import exchange_key
from rempart.ledger.writing.journal import Journal
from rempart.ledger.writing.recover import Lost
from rempart.wire.assemble import from_pieces
from rempart.wire.facts import Fact

_STATUS_LOST: Final = 500


async def close_lost(journal: Journal, lost: Lost) -> None:
    """Raises `LedgerUnavailable`."""
    fields = lost.request
    facts: dict[str, Fact] = {"outcome": "lost", "status": _STATUS_LOST, "error": "lost", "request": lost.index}

    def key_of(keystore: Keystore) -> bytes | None:
        try:
            return exchange_key(keystore, fields)
        except KeystoreError:
            return None  # its person or its time was erased meanwhile

    key = await journal.vault.ask(key_of)
    if key is None:
        kept = {name: fields[name] for name in ("exchange", "actor", "role", "key", "operation")}
        await journal.close_unreadable({**kept, **facts})
        return
    record = journal.reopen(fields, key)
    content: dict[str, object] = {}
    pieces = record.unseal_pieces(lost.pieces)
    if pieces:
        whole = from_pieces(str(fields["operation"]), str(fields["model"]), pieces)
        content["response"] = msgspec.Raw(whole)
    await record.response(facts, msgspec.json.encode(content))
