"""`Witnessing.run`: the log is shown to its witnesses while it grows, and the newest note with a quorum is kept.

    <data>/ledger/witnessed/checkpoint   the log's note with the cosignatures that came; replaced durably

All witnesses are asked at once, in bounded time. That one is away changes nothing but a counter and a line in the log.
What one refuses, because it has cosigned what this log is not, is an alarm: it is recorded as an entry, and `state`
tells it for as long as that witness stays with it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from rempart.errors import LedgerCorrupt, RempartError
from rempart.ledger.log.checkpoint import parse_note, with_signatures
from rempart.ledger.log.consistency import Alarm, Breach
from rempart.ledger.log.policy import Policy
from rempart.ledger.reading.witnessed import read_witnessed, witnessed_path
from rempart.ledger.store.files import replace_durably
from rempart.ledger.writing.draft import Receipt, Witnessed
from rempart.ledger.writing.witness_client import Breached, Shown, WitnessClient
from rempart.wire.facts import Fact

_log = logging.getLogger("rempart.ledger")
# What a log and its witnesses show is public to whoever may read the directory.
_MODE = 0o644


class Recorder(Protocol):
    """The part of a journal that is needed here."""

    def event(self, type: str, facts: Mapping[str, Fact]) -> Awaitable[Receipt]: ...


class Witnessing:
    """One per log. `ledger` is `<data>/ledger`."""

    def __init__(
        self,
        ledger: Path,
        policy: Policy,
        clients: Sequence[WitnessClient],
        recorder: Recorder,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Raises `LedgerCorrupt` when what was witnessed before cannot be read."""
        self._ledger = ledger
        self._policy = policy
        self._clients = clients
        self._recorder = recorder
        self._clock = clock
        self._alarms: dict[str, tuple[Alarm, str]] = {}
        """Witness -> its alarm, and the sentence that tells it."""
        self._recorded: set[Alarm] = set()
        self._failures = Counter({client.name: 0 for client in clients})
        self._told: dict[str, str] = {}
        """Witness, or what else failed -> what was last said of it in the log."""
        self._size = 0
        note = read_witnessed(ledger)
        if note is not None:
            self._size = parse_note(note)[1].size
            for client in clients:
                client.remember(note)

    def state(self) -> Witnessed:
        alarms = " ".join(sentence for _, sentence in self._alarms.values())
        return Witnessed(size=self._size, failures=dict(self._failures), alarm=alarms)

    def adopt(self, policy: Policy) -> None:
        """From the next round on its logs and its quorum hold; whom to ask stays as it was."""
        self._policy = policy

    async def run(self, every_s: float) -> None:
        """Until it is cancelled: a round at once, then one every `every_s` while the log has grown."""
        try:
            await self.round(always=True)
            while True:
                await asyncio.sleep(every_s)
                await self.round()
        finally:
            for client in self._clients:
                client.close()

    async def round(self, always: bool = False) -> None:
        """Ask all witnesses once. Nothing to do when the newest checkpoint is witnessed, unless `always`."""
        try:
            shown = await asyncio.to_thread(Shown.read, self._ledger / "log")
            if shown.head.size > self._size or self._alarms or always:
                await self._ask(shown)
            self._say("the round", "")
        except (RempartError, OSError) as error:
            self._say("the round", f"The log cannot be shown to its witnesses: {error}")

    async def _ask(self, shown: Shown) -> None:
        async with asyncio.TaskGroup() as tasks:
            asked = [tasks.create_task(_ask_one(client, shown)) for client in self._clients]
        lines: list[bytes] = []
        for client, task in zip(self._clients, asked, strict=True):
            lines += await self._hear(client.name, task.result())
        await self._record()
        try:
            note = with_signatures(shown.note, lines) if lines else shown.note
            self._policy.open(note, self._clock())
        except LedgerCorrupt as error:
            self._say("the quorum", error.message)
            return
        self._say("the quorum", "")
        if lines and shown.head.size >= self._size:
            await asyncio.to_thread(replace_durably, {witnessed_path(self._ledger): note}, _MODE)
            self._size = shown.head.size

    async def _hear(self, name: str, answer: list[bytes] | RempartError) -> list[bytes]:
        """The lines of a witness; none when it is away or refuses."""
        if isinstance(answer, list):
            self._alarms.pop(name, None)
            self._say(name, "")
            return answer
        if isinstance(answer, Breached):
            if not await self._is_true(answer.alarm):
                return []
            self._alarms[name] = (answer.alarm, answer.message)
        self._failures[name] += 1
        self._say(name, f"{answer.message} {answer.hint}".strip())
        return []

    async def _is_true(self, alarm: Alarm) -> bool:
        """Meanwhile the log may have grown, and somebody shown the witness its newer checkpoint."""
        if alarm.kind is not Breach.ROLL_BACK:
            return True
        newer = await asyncio.to_thread(Shown.read, self._ledger / "log")
        return newer.head.size < alarm.size

    async def _record(self) -> None:
        """Each alarm is an entry, once. Raises `LedgerUnavailable`; it is then recorded in the next round."""
        for alarm, _ in self._alarms.values():
            if alarm not in self._recorded:
                facts: dict[str, Fact] = {"kind": alarm.kind.value, "witness": alarm.witness, "size": alarm.size}
                await self._recorder.event("alarm", facts)
                self._recorded.add(alarm)

    def _say(self, about: str, what: str) -> None:
        """In the log, once per change; empty: all is well again."""
        before = self._told.get(about, "")
        if what == before:
            return
        self._told[about] = what
        if not what:
            _log.info("Witnesses: %s is well again.", about)
        elif about in self._alarms:
            _log.critical("%s", what)
        else:
            _log.warning("%s", what)


async def _ask_one(client: WitnessClient, shown: Shown) -> list[bytes] | RempartError:
    """One that fails must not end the asking of the others."""
    try:
        return await client.cosign(shown)
    except RempartError as error:
        return error
