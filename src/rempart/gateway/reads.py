"""`Reads.record`: every read of the ledger is an entry of the ledger, durable before its result is shown.

The entry says who read, with which verb, how many entries were found and how many bodies are shown; what was asked for
and the stated reason are its encrypted body, in the retention class `audit`. What cannot be recorded is not shown.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final, Literal

import msgspec

from rempart import limits
from rempart.config.settings import AUDIT
from rempart.errors import Forbidden, UsageError
from rempart.gateway.exchanges import new_exchange_id
from rempart.gateway.verbs import Verb, converted
from rempart.identity.caller import Caller
from rempart.identity.keyring import KeyRing
from rempart.ledger.writing.draft import Receipt
from rempart.ledger.writing.journal import WorkerJournal
from rempart.wire.facts import Fact

OPERATOR: Final = "operator"
"""In place of a role and a key: whoever may open the data directory, on its machine."""


class Read(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is about to be shown."""

    verb: Literal["search", "show", "prove", "pack", "tail", "replicate", "bodies"]
    found: int
    """Entries or exchanges."""
    bodies: int = 0
    """Of those that are shown."""
    exchange: str = ""
    """The one that was meant; empty when there were several, or none."""
    query: str = ""
    """What was asked for, as it was typed."""
    reason: str = ""


class Reader(msgspec.Struct, frozen=True, kw_only=True):
    """Who reads."""

    actor: str = ""
    role: str = OPERATOR
    key: str = OPERATOR
    second: str = ""
    """Key of the second auditor, where two are needed."""


class _Order(Read, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A read on the command line."""

    disclosed: bool = False
    """What was said is about to be shown."""
    key: str = ""
    """Text of the reader's key."""
    second: str = ""


class Reads:
    """The readers of one site, and the record of what they read."""

    def __init__(
        self, journal: WorkerJournal, ring: KeyRing, *, four_eyes: bool, clock: Callable[[], float] = time.time
    ) -> None:
        self._journal = journal
        self._ring = ring
        self.four_eyes = four_eyes
        """What was said is shown to two auditors at once."""
        self._clock = clock

    def verbs(self) -> dict[str, Verb]:
        """Commands of the control socket."""
        return {"read.record": self._record}

    def disclosing(self, caller: Caller, second: str, reason: str) -> Reader:
        """Who may see what was said: an auditor with a reason, and where two are needed, a second one.

        Raises `Forbidden`, `Unauthenticated`, `UsageError`.
        """
        caller.require("read_bodies")
        if not any(map(str.isalnum, reason)) or len(reason) > limits.reason_chars_max:
            raise UsageError(
                f"What was said is shown for a stated reason, of at most {limits.reason_chars_max} characters.",
                hint="State the reason; it is recorded.",
            )
        if not self.four_eyes:
            return reader_of(caller)
        if not second:
            raise Forbidden(
                "What was said is shown here to two auditors at once.",
                hint="Give the key of a second auditor, in x-rempart-second or --second-key-file.",
            )
        other = self._ring.authenticate(second, self._clock())
        other.require("read_bodies")
        if other.key == caller.key or other.actor == caller.actor:
            raise Forbidden("The two keys are of the same person.", hint="Give the key of another auditor.")
        return msgspec.structs.replace(reader_of(caller), second=other.key)

    async def record(self, reader: Reader, read: Read) -> Receipt:
        """Durable when it returns. Raises `LedgerUnavailable`; then nothing may be shown."""
        record = await self._journal.open(
            new_exchange_id(self._clock()),
            actor=reader.actor,
            role=reader.role,
            key=reader.key,
            subject="",
            people=(),
            retention=AUDIT,
        )
        facts: dict[str, Fact] = {"verb": read.verb, "found": read.found, "bodies": read.bodies}
        if read.exchange:
            facts["about"] = read.exchange
        if reader.second:
            facts["second"] = reader.second
        return await record.remark("read", facts, msgspec.json.encode({"query": read.query, "reason": read.reason}))

    async def _record(self, args: dict[str, Any]) -> dict[str, Any]:
        order = converted(args, _Order, "This is no read")
        reader = Reader()
        if order.key or order.disclosed:
            caller = self._ring.authenticate(order.key, self._clock())
            caller.require("read_ledger")
            reader = reader_of(caller)
            if order.disclosed:
                reader = self.disclosing(caller, order.second, order.reason)
        receipt = await self.record(reader, order)
        return {"index": receipt.index, "role": reader.role, "key": reader.key}


def reader_of(caller: Caller) -> Reader:
    return Reader(actor=caller.actor, role=caller.role, key=caller.key)
