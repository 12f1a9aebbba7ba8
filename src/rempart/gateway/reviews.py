"""`record_review`: the control command that records a review: what it covered, who made it, and a note under seal."""

from __future__ import annotations

from typing import Any

import msgspec

from rempart import limits
from rempart.config.settings import AUDIT
from rempart.errors import UsageError
from rempart.gateway.verbs import converted
from rempart.ledger.reading.review import Period
from rempart.ledger.writing.journal import Journal


class _Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    by: str
    note: str
    period: Period


async def record_review(journal: Journal, args: dict[str, Any]) -> dict[str, Any]:
    """Index of its entry. Raises `UsageError`, `LedgerUnavailable`."""
    asked = converted(args, _Asked, "The review cannot be recorded")
    if not 0 < len(asked.by.strip()) <= limits.subject_chars_max or len(asked.note) > limits.review_note_chars_max:
        raise UsageError(
            "A review has a name and a note.",
            hint=f"--by of at most {limits.subject_chars_max} characters, --note of at most "
            f"{limits.review_note_chars_max}.",
        )
    by, _ = await journal.vault.ask(lambda keystore: keystore.pseudonym("a", asked.by))
    facts = {"by": by, **msgspec.to_builtins(asked.period)}
    note = msgspec.json.encode({"note": asked.note})
    receipt = await journal.remark("review", facts, note, AUDIT)
    return {"index": receipt.index, "by": by}
