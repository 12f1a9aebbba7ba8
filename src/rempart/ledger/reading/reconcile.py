"""`reconcile`: is what the ledger holds all that was done? Entries are held to what was counted beside them.

Each minute a server writes a `heartbeat`: per engine how many requests it was handed, how many it answered and with how
many tokens, and what the engine itself says it served; per key how many exchanges were recorded. For each run:

1. At each heartbeat the ledger must hold at least what was counted by then: requests, answers, failures, tokens, keys.
2. An engine that says what it served must not have served more than the ledger holds since the first heartbeat. It is
   looked at when nothing runs. What was cancelled, failed or counted without the engine has no exact count: an
   allowance is made for it, and told.
3. There must be a heartbeat each minute while the server was up, and clock and uptime must go at one pace.

What it cannot tell: an engine that lies, or that forgot (one that died between two heartbeats), and engines that
say nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from rempart import limits
from rempart.errors import LedgerCorrupt
from rempart.ledger.reading.entries import EntryReader
from rempart.ledger.reading.pairs import seconds_between
from rempart.ledger.reading.tally import Entry, Tally

_entry = msgspec.json.Decoder(Entry)
COUNTS: Final = ("dispatched", "answered", "failed", "tokens_prompt", "tokens_completion")


class Gap(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that does not agree."""

    kind: str
    """`recorded`, `key`, `served`, `heartbeat`, `clock`."""
    boot: str
    what: str
    index: int
    """Of the entry that shows it."""


class EngineRow(msgspec.Struct, frozen=True, kw_only=True):
    """One engine in one run, at its last heartbeat."""

    boot: str
    engine: str
    recorded: dict[str, int]
    counted: dict[str, int]
    served: dict[str, int] | None
    """`prompt` and `completion`, since the first heartbeat; None when the engine does not say."""
    compared: int
    """Heartbeats at which that could be held to the ledger exactly."""
    allowance: dict[str, int]
    """Tokens that exchanges without an exact count may have taken."""


class Reconciled(msgspec.Struct, frozen=True, kw_only=True):
    """What was found."""

    boots: int
    heartbeats: int
    engines: list[EngineRow]
    gaps: list[Gap]
    """At most `limits.faults_told_max`."""
    more: int
    """Gaps beyond these."""

    @property
    def holds(self) -> bool:
        return not self.gaps


def reconcile(ledger: Path, since: str = "") -> Reconciled:
    """`since`: a time as in entries, or its beginning; runs that ended before are left out. Raises `LedgerCorrupt`."""
    gaps = _Gaps()
    boots: dict[str, _Boot] = {}
    latest = ""
    for index, entry in _entries(ledger):
        boot = boots.get(entry.boot)
        if boot is None:
            boot = boots[entry.boot] = _Boot(entry.boot, gaps)
        boot.see(index, entry)
        if latest and seconds_between(entry.time, latest) > limits.clock_margin_s:
            boot.gap("clock", index, f"The clock was set back: {entry.time} follows {latest}.")
            latest = entry.time
        latest = max(latest, entry.time)
    kept = [boot for boot in boots.values() if boot.last_time >= since]
    for boot in kept:
        boot.end()
    told = sorted((gap for gap in gaps.found if boots[gap.boot] in kept), key=lambda gap: gap.index)
    return Reconciled(
        boots=len(kept),
        heartbeats=sum(boot.heartbeats for boot in kept),
        engines=[row for boot in kept for row in boot.rows()],
        gaps=told[: limits.faults_told_max],
        more=max(len(told) - limits.faults_told_max, 0),
    )


def _entries(ledger: Path) -> Iterator[tuple[int, Entry]]:
    for index, entry in EntryReader(ledger).forward(0):
        try:
            yield index, _entry.decode(entry)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise LedgerCorrupt(f"Entry {index} cannot be read.", hint="Run 'rempart ledger verify'.") from error


class _Gaps:
    def __init__(self) -> None:
        self.found: list[Gap] = []


class _Boot:
    """One run of a server."""

    def __init__(self, boot: str, gaps: _Gaps) -> None:
        self.last_time = ""
        self.heartbeats = 0
        self._boot = boot
        self._gaps = gaps
        self._last_index = 0
        self._first_time = ""
        self._beat: tuple[str, int] | None = None
        """Time and uptime of the last heartbeat."""
        self._tally = Tally()
        self._counted: dict[str, dict[str, int]] = {}
        self._first_served: dict[str, dict[str, int]] = {}
        self._served: dict[str, dict[str, int]] = {}
        self._compared: dict[str, int] = {}
        self._told: set[tuple[str, str]] = set()

    def see(self, index: int, entry: Entry) -> None:
        self._first_time = self._first_time or entry.time
        self.last_time, self._last_index = entry.time, index
        if entry.type in ("request", "response"):
            self._tally.see(entry)
        elif entry.type == "heartbeat":
            self._see_keys(index, entry)
            if entry.part == 0:
                self._see_beat(index, entry)

    def end(self) -> None:
        """No more entries of this run."""
        since = self._beat[0] if self._beat is not None else self._first_time
        if self.heartbeats:  # a command on the directory is a run of moments, without one
            self._require_beat(self._last_index, seconds_between(since, self.last_time))

    def rows(self) -> Iterator[EngineRow]:
        for engine in sorted(self._counted.keys() | self._tally.engines.keys()):
            served = None
            if engine in self._served:
                first, last = self._first_served[engine], self._served[engine]
                served = {name: last[name] - first[name] for name in ("prompt", "completion")}
            allowance = self._tally.allowance(engine)
            yield EngineRow(
                boot=self._boot,
                engine=engine,
                recorded=self._tally.of(engine),
                counted={name: self._counted.get(engine, {}).get(name, 0) for name in COUNTS},
                served=served,
                compared=self._compared.get(engine, 0),
                allowance={"prompt": allowance.prompt, "completion": allowance.completion},
            )

    def gap(self, kind: str, index: int, what: str) -> None:
        self._gaps.found.append(Gap(kind=kind, boot=self._boot, what=what, index=index))

    def _gap_once(self, kind: str, about: str, index: int, what: str) -> None:
        """A lack stays for the rest of the run: it is told where it shows first."""
        if (kind, about) not in self._told:
            self._told.add((kind, about))
            self.gap(kind, index, what)

    def _see_beat(self, index: int, entry: Entry) -> None:
        self.heartbeats += 1
        if self._beat is not None:
            time, up_s = self._beat
            passed = entry.up_s - up_s
            self._require_beat(index, passed)
            jump = seconds_between(time, entry.time) - passed
            if abs(jump) > limits.clock_margin_s:
                self.gap("clock", index, f"The clock jumped by {jump:.0f} s between {time} and {entry.time}.")
        elif entry.up_s > limits.heartbeat_late_s:
            self._require_beat(index, entry.up_s)
        self._beat = (entry.time, entry.up_s)
        for name, count in entry.engines.items():
            engine, _, what = name.rpartition(".")
            if what.startswith("served_"):
                self._served.setdefault(engine, {})[what.removeprefix("served_")] = count
            else:
                self._counted.setdefault(engine, {})[what] = count
        for engine, counted in self._counted.items():
            self._hold(index, engine, counted)
            if f"{engine}.served_prompt" in entry.engines:
                self._hold_served(index, engine, counted)

    def _require_beat(self, index: int, passed: float) -> None:
        if passed > limits.heartbeat_late_s:
            self.gap("heartbeat", index, f"No heartbeat for {passed:.0f} s before {self.last_time}.")

    def _see_keys(self, index: int, entry: Entry) -> None:
        for key, counted in entry.keys.items():
            recorded = self._tally.keys.get(key, 0)
            if counted > recorded:
                what = f"Key {key}: {counted} exchanges were recorded, the ledger holds {recorded}."
                self._gap_once("key", key, index, what)

    def _hold(self, index: int, engine: str, counted: dict[str, int]) -> None:
        recorded = self._tally.of(engine)
        for name in COUNTS:
            if counted.get(name, 0) > recorded[name]:
                what = f"Engine {engine}: {counted[name]} {_WORDS[name]} counted, the ledger holds {recorded[name]}."
                self._gap_once("recorded", f"{engine}.{name}", index, what)

    def _hold_served(self, index: int, engine: str, counted: dict[str, int]) -> None:
        served = dict(self._served[engine])
        first = self._first_served.setdefault(engine, served)
        if counted.get("running"):
            return
        self._compared[engine] = self._compared.get(engine, 0) + 1
        recorded, allowance = self._tally.of(engine), self._tally.allowance(engine)
        for name, allowed in (("prompt", allowance.prompt), ("completion", allowance.completion)):
            over = served[name] - first[name] - recorded[f"tokens_{name}"]
            if over > allowed:
                what = (
                    f"Engine {engine} says it served {over} {_WORDS[f'tokens_{name}']} more than the ledger holds"
                    + (f"; exchanges without an exact count may have taken {allowed} of them." if allowed else ".")
                )
                self._gap_once("served", f"{engine}.{name}", index, what)


_WORDS: Final = {
    "dispatched": "requests",
    "answered": "answers",
    "failed": "failures",
    "tokens_prompt": "tokens of prompts",
    "tokens_completion": "tokens of answers",
}
