"""`Submissions.answer`: the HTTP side of a witness: a bounded body in, what the witness answers out.

The protocol has no keys: whoever sends a checkpoint that its log signed is answered (C2SP tlog-witness).
"""

from __future__ import annotations

from rempart import limits
from rempart.gateway.http import NO_STORE, Budget, Request
from rempart.gateway.ports import Witness


class Submissions:
    """One per process."""

    def __init__(self, witness: Witness) -> None:
        self._witness = witness
        self._budget = Budget(limits.witness_bodies_bytes_max)

    async def answer(self, request: Request) -> None:
        """Raises `RequestTooLarge`, `Overloaded`, `ClientGone`, `LedgerUnavailable`."""
        share = self._budget.share()
        try:
            body = await request.body(limits.witness_body_bytes_max, share)
            found = await self._witness.add_checkpoint(body)
        finally:
            share.give_back()
        await request.reply(found.status, found.body, [(b"content-type", found.content_type), NO_STORE])
