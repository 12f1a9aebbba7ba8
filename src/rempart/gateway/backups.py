"""`record_backup`: the control command that tells the ledger of a backup, before a copy of its keys is made."""

from __future__ import annotations

import asyncio
import re
from typing import Any, Final

import msgspec

from rempart import limits
from rempart.errors import LedgerUnavailable, UsageError
from rempart.gateway.verbs import SAME_VERSION, converted
from rempart.ledger.writing.journal import Journal
from rempart.wire.facts import Fact

_ID: Final = re.compile(r"[0-9a-f]{32}")
_POLL_S: Final = 0.05


class _Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    backup: str
    with_root: bool


async def record_backup(journal: Journal, args: dict[str, Any]) -> dict[str, Any]:
    """Index and epoch of its entry, once a checkpoint covers it. Raises `UsageError`, `LedgerUnavailable`."""
    asked = converted(args, _Asked, "The backup cannot be recorded")
    if not _ID.fullmatch(asked.backup):
        raise UsageError("A backup's id has 32 hex digits.", hint=SAME_VERSION)
    epoch = await journal.vault.ask(lambda keystore: keystore.epoch)
    facts: dict[str, Fact] = {"backup": asked.backup, "epoch": epoch, "with_root": asked.with_root}
    receipt = await journal.event("backup", facts)
    await covered(journal, receipt.index)
    return {"index": receipt.index, "epoch": epoch}


async def covered(journal: Journal, index: int) -> None:
    """Wait for the checkpoint over that entry. Raises `LedgerUnavailable` when none comes."""
    try:
        async with asyncio.timeout(limits.cover_s):
            while journal.state().tree_size <= index:
                await asyncio.sleep(_POLL_S)
    except TimeoutError as error:
        raise LedgerUnavailable("The checkpoint does not come.", hint="See the server's log, and its disk.") from error
