"""`Pairs.see`: what entries say of each other: requests and responses, runs, times (values in, faults out)."""

from __future__ import annotations

from collections import Counter
from datetime import datetime

from rempart import limits
from rempart.ledger.log import entry as entries
from rempart.ledger.reading.faults import DISTRUST, Fault, Sink


class Pairs:
    """Sees every entry that can be read, in order."""

    def __init__(self, size: int, sink: Sink) -> None:
        self.size = size
        """Entries under the checkpoint."""
        self.open: dict[str, int] = {}
        self.requests = 0
        self.outcomes: Counter[str] = Counter()
        self.last_time = ""
        self.lost: set[int] = set()
        """Indices of entries that cannot be read."""
        self._latest = ""
        self._sink = sink
        self._beyond: entries.Facts | None = None
        """The first entry that the checkpoint does not cover."""
        self._rolled_back = False

    def see(self, index: int, facts: entries.Facts) -> None:
        if facts.time < self._latest:
            self._earlier(index, facts)
        else:
            self._latest = facts.time
        self.last_time = facts.time
        if facts.type == "request":
            if facts.exchange in self.open:
                self._pair(index, f"Entry {index} is a second request of its exchange.")
            self.open[facts.exchange] = index
            self.requests += 1
        elif facts.type == "response":
            request = facts.request
            if request is not None and self.open.pop(facts.exchange, None) != request and request not in self.lost:
                self._pair(index, f"Entry {index} answers a request that is not there, or was answered before.")
            self.outcomes[facts.outcome] += 1
        if index >= self.size:
            self._see_beyond(index, facts)

    def _see_beyond(self, index: int, facts: entries.Facts) -> None:
        """Every start puts what came before it under the checkpoint, and a running server does so each second."""
        if self._beyond is None:
            self._beyond = facts
        late = seconds_between(self._beyond.time, facts.time) > limits.checkpoint_behind_s
        if self._rolled_back or not (late or facts.boot != self._beyond.boot):
            return
        self._rolled_back = True
        why = "of an earlier run of the server" if facts.boot != self._beyond.boot else "older than it should be"
        self._sink(
            Fault(
                kind="rollback",
                where="log/checkpoint",
                what=f"The checkpoint ends at entry {self.size}, which is {why}: the log was put back, or not written.",
                first=self.size,
                last=index,
                remedy="Ask who restored it. The segments hold these entries: a start puts them under a checkpoint.",
            )
        )

    def _earlier(self, index: int, facts: entries.Facts) -> None:
        if seconds_between(facts.time, self._latest) <= limits.clock_margin_s:
            return
        what = f"Entry {index} is of {facts.time}, the one before it of {self._latest}: the clock was set back."
        remedy = "Keep the clock in step (NTP). Days of retention and times in reports are those of that clock."
        where = "log/tile/entries" if index < self.size else "segments"
        self._sink(Fault(kind="clock", where=where, what=what, first=index, last=index, remedy=remedy, grave=False))
        self._latest = facts.time

    def _pair(self, index: int, what: str) -> None:
        self._sink(Fault(kind="exchange", where="", what=what, first=index, last=index, remedy=DISTRUST))


def seconds_between(earlier: str, later: str) -> float:
    """Times as in entries; 0 when one of them is none."""
    try:
        return (_parse(later) - _parse(earlier)).total_seconds()
    except ValueError:
        return 0.0


def _parse(time: str) -> datetime:
    return datetime.strptime(time, "%Y-%m-%dT%H:%M:%S.%f%z")
