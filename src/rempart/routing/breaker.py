"""`Breaker.allows`: may an engine be asked now (pure: the time is an argument, in seconds of one steady clock).

| state | who may ask | what ends it |
|---|---|---|
| closed | all | `breaker_failures` failures in a row, or `breaker_rate` of the last `breaker_window` exchanges: open |
| open | nobody | its time is over: half-open |
| half-open | one exchange at a time, the trial | its first piece or good end: closed; its failure: open, for longer |

An engine that answers with an error may do so because of the request. So that one tenant's poisoned prompt cannot close
an engine to the others, failures of that kind count once until another tenant's exchange has ended.
Source of the idea: M. Nygard, Release It!, "Circuit Breaker".
"""

from __future__ import annotations

from collections import deque
from typing import Final, Literal, TypeAlias

from rempart import limits
from rempart.routing.ask import Verdict

State: TypeAlias = Literal["closed", "half-open", "open"]
_BAD: Final = (Verdict.FAILED, Verdict.GONE)


class Breaker:
    """Of one engine."""

    __slots__ = ("_begun", "_blamed", "_open", "_pause_s", "_recent", "_row", "_trial", "_until")

    def __init__(self) -> None:
        self._recent: deque[bool] = deque(maxlen=limits.breaker_window)
        """Whether each of the last exchanges failed."""
        self._pause_s = limits.breaker_open_first_s
        self._until = 0.0
        self._begun = 0
        """Trials so far."""
        self._trial = 0
        """Number of the trial that runs; 0: none does."""
        self.close()

    def close(self) -> None:
        """All may ask; what was is forgotten. Also when the engine was started again."""
        self._open = False
        self._row = 0
        self._blamed = ""
        self._trial = 0
        self._recent.clear()

    def state(self, now: float) -> State:
        if not self._open:
            return "closed"
        return "open" if now < self._until else "half-open"

    def allows(self, now: float) -> bool:
        return not self._open or (now >= self._until and not self._trial)

    def wait_s(self, now: float) -> float:
        """Until it may be asked again; 0 when that is a matter of a trial."""
        return max(self._until - now, 0.0) if self._open else 0.0

    def begin(self) -> int:
        """It is asked, as `allows` said it may. The trial's number, or 0 when this is none."""
        if not self._open:
            return 0
        self._begun += 1
        self._trial = self._begun
        return self._trial

    def heard(self, trial: int) -> None:
        """The first piece of an answer came: a trial need not last as long as its stream."""
        if trial and trial == self._trial:
            self._heal()

    def end(self, trial: int, verdict: Verdict, tenant: str, now: float) -> None:
        """`trial` is what `begin` said."""
        if self._open:
            self._end_trial(trial, verdict, now)
        elif verdict is Verdict.SERVED:
            self._row, self._blamed = 0, ""
            self._recent.append(False)
        elif verdict in _BAD:
            self._fail(verdict, tenant, now)

    def _end_trial(self, trial: int, verdict: Verdict, now: float) -> None:
        """Exchanges that began before it opened say nothing new."""
        if not trial or trial != self._trial:
            return
        self._trial = 0
        if verdict is Verdict.SERVED:
            self._heal()
        elif verdict in _BAD:
            self._pause_s = min(self._pause_s * 2, limits.breaker_open_most_s)
            self._until = now + self._pause_s

    def _fail(self, verdict: Verdict, tenant: str, now: float) -> None:
        if verdict is Verdict.FAILED:
            if tenant == self._blamed:
                return
            self._blamed = tenant
        self._row += 1
        self._recent.append(True)
        full = len(self._recent) == limits.breaker_window
        if self._row >= limits.breaker_failures or (
            full and sum(self._recent) >= limits.breaker_rate * len(self._recent)
        ):
            self._open = True
            self._until = now + self._pause_s

    def _heal(self) -> None:
        self.close()
        self._pause_s = limits.breaker_open_first_s
