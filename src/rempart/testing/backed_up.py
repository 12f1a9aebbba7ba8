"""`Installation`: a data directory with a real keystore and journal, without gateway, for tests of backups."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec

from rempart.gateway.backups import record_backup
from rempart.ledger.copying.backup import Backup, Made, Places, Recorded
from rempart.ledger.keys.configured import open_keystore
from rempart.ledger.log.checkpoint import Verifier
from rempart.ledger.reading.find import find_everywhere
from rempart.ledger.writing.journal import Journal
from rempart.ledger.writing.opening import open_ledger, read_vkey


class Installation:
    """`data` is its directory."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.answered: dict[str, str] = {}
        """Exchange -> what was said."""

    @property
    def ledger(self) -> Path:
        return self.data / "ledger"

    @property
    def verifier(self) -> Verifier:
        return Verifier.from_vkey(read_vkey(self.data))

    @contextlib.asynccontextmanager
    async def open(self, origin: str = "") -> AsyncIterator[Journal]:
        """One run."""
        journal = await open_ledger(self.data, open_keystore(self.data), origin=origin, strict=False)
        try:
            yield journal
        finally:
            await journal.close()

    async def exchange(self, journal: Journal, *, answered: bool = True) -> str:
        """Asked, and answered; the id."""
        exchange, said = f"0199{secrets.token_hex(14)}", secrets.token_hex(8)
        record = await journal.open(
            exchange, actor="a_0", role="user", key="k", subject="", people=("Ada",), retention="standard"
        )
        facts: dict[str, Any] = {"operation": "chat", "model": "m"}
        asked = await record.request(facts, msgspec.json.encode({"request": said}))
        if answered:
            done = {**facts, "outcome": "ok", "status": 200, "request": asked.index}
            await record.response(done, msgspec.json.encode({"response": said}))
            self.answered[exchange] = said
        return exchange

    async def back_up(self, journal: Journal, places: Places) -> Made:
        """While it runs."""
        loop = asyncio.get_running_loop()

        def record(id_: str, with_root: bool) -> Recorded:
            args = {"backup": id_, "with_root": with_root}
            return msgspec.convert(
                asyncio.run_coroutine_threadsafe(record_backup(journal, args), loop).result(), Recorded
            )

        return await asyncio.to_thread(Backup(self.data, self.verifier, record).create, places)

    def read(self, exchange: str) -> str:
        """What was answered, opened with the keys of this directory."""
        keystore = open_keystore(self.data)
        try:
            found = find_everywhere(self.ledger, exchange, keystore)
        finally:
            keystore.close()
        return str(found[-1].body["response"])
