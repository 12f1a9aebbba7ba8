"""`Counts`: what the gateway did, counted beside the ledger, so that the ledger can be held to it (pure).

Everything is counted after it is durable, or was to be: at any moment the ledger must hold at least what is counted.
Counts are since the start of the server (this boot), those of keys also of the UTC day.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

from rempart.wire.job import Served

_DAY_S: Final = 86_400


class _Engine:
    """Of one engine."""

    __slots__ = ("answered", "dispatched", "failed", "retried", "tokens_completion", "tokens_prompt")

    def __init__(self) -> None:
        self.dispatched = 0
        """Requests handed to it."""
        self.retried = 0
        """Under way here after another engine failed. The ledger says so in their responses: they are counted then."""
        self.answered = 0
        """Whole answers."""
        self.failed = 0
        """Failed, cancelled, cut, or not recorded."""
        self.tokens_prompt = 0
        self.tokens_completion = 0

    @property
    def running(self) -> int:
        return self.dispatched + self.retried - self.answered - self.failed


class Counts:
    """`now` is seconds since 1970."""

    def __init__(self, engines: Iterable[str], day: int = 0, today: Mapping[str, int] | None = None) -> None:
        """`today`: key -> exchanges recorded on that UTC day before this boot."""
        self._engines = {name: _Engine() for name in engines}
        self._day = day
        self._today = Counter(today or {})
        self._boot: Counter[str] = Counter()
        self._told: dict[str, int] = {}

    def dispatched(self, engine: str) -> None:
        """A request, which is recorded, is handed to the engine."""
        self._engine(engine).dispatched += 1

    def retried(self, engine: str) -> None:
        """A request is handed to this engine after another one failed."""
        self._engine(engine).retried += 1

    def ended(
        self, engine: str, *, answered: bool, tokens_prompt: int, tokens_completion: int, retried: bool = False
    ) -> None:
        """What was dispatched, or handed on (`retried`), has ended; its response was recorded or could not be."""
        one = self._engine(engine)
        if retried:
            one.retried -= 1
            one.dispatched += 1
        if answered:
            one.answered += 1
        else:
            one.failed += 1
        one.tokens_prompt += tokens_prompt
        one.tokens_completion += tokens_completion

    def lost(self, engine: str, dispatched: int, retried: int) -> None:
        """What became of so many is not known: they are counted no more."""
        one = self._engine(engine)
        one.dispatched -= dispatched
        one.retried -= retried

    def recorded(self, key: str, now: float) -> None:
        """An exchange of that key, whatever became of it, has its response in the ledger."""
        self._turn(now)
        self._boot[key] += 1
        self._today[key] += 1

    def of_key(self, key: str, now: float) -> tuple[int, int]:
        """Exchanges recorded since the boot, and on this UTC day."""
        self._turn(now)
        return self._boot[key], self._today[key]

    def today(self, now: float) -> dict[str, int]:
        """Of all keys."""
        self._turn(now)
        return dict(self._today)

    def engines(self) -> dict[str, dict[str, int]]:
        """As they stand."""
        return {
            name: {
                "dispatched": one.dispatched,
                "answered": one.answered,
                "failed": one.failed,
                "running": one.running,
                "tokens_prompt": one.tokens_prompt,
                "tokens_completion": one.tokens_completion,
            }
            for name, one in self._engines.items()
        }

    def changed_keys(self) -> dict[str, int]:
        """Exchanges since the boot of the keys that had some since the last call of `tell_keys`."""
        return {key: count for key, count in self._boot.items() if self._told.get(key) != count}

    def tell_keys(self, keys: Mapping[str, int]) -> None:
        """These counts are in the ledger."""
        self._told.update(keys)

    def _engine(self, name: str) -> _Engine:
        return self._engines.setdefault(name, _Engine())

    def _turn(self, now: float) -> None:
        day = int(now // _DAY_S)
        if day > self._day:
            self._day = day
            self._today.clear()


def flat(engines: Mapping[str, Mapping[str, int]], served: Mapping[str, Served]) -> dict[str, int]:
    """As a heartbeat has it: `<engine>.<count>`, with what engines themselves say they served."""
    found = {f"{name}.{what}": count for name, counts in engines.items() for what, count in counts.items()}
    for name, one in served.items():
        found[f"{name}.served_prompt"] = one.tokens_prompt
        found[f"{name}.served_completion"] = one.tokens_completion
    return found
