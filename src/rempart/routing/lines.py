"""`Lines.join`: who waits for an engine: keys take turns, what one key sent keeps its order (pure).

There is a line for each model. Their length is bounded together. When they are full, a key that has more waiting than
the one that comes loses its newest place to it: one key alone can fill the queue, but not keep others out.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterator
from typing import Generic, TypeVar

from rempart.errors import Overloaded

T = TypeVar("T")


class Lines(Generic[T]):
    """Tickets are told apart by their identity."""

    def __init__(self, length_max: int) -> None:
        self._length_max = length_max
        self._length = 0
        self._joined = 0
        self._lines: OrderedDict[str, OrderedDict[str, dict[T, int]]] = OrderedDict()
        """Model -> key -> ticket -> its number; models and keys in the order of their turns. None is empty."""
        self._waiting: Counter[str] = Counter()
        """Tickets of each key."""

    def __len__(self) -> int:
        return self._length

    def holds(self, model: str) -> bool:
        """Somebody waits for that model."""
        return model in self._lines

    def models(self) -> list[str]:
        """Those that are waited for, whose turn it is first."""
        return list(self._lines)

    def join(self, model: str, key: str, ticket: T) -> T | None:
        """The ticket that lost its place to this one, or None. Raises `Overloaded` when there is no place."""
        lost = self._make_place(key) if self._length >= self._length_max else None
        self._joined += 1
        self._lines.setdefault(model, OrderedDict()).setdefault(key, {})[ticket] = self._joined
        self._waiting[key] += 1
        self._length += 1
        return lost

    def firsts(self, model: str) -> Iterator[tuple[str, T]]:
        """(key, its first ticket) in turn, as they stand at this moment."""
        for key, tickets in list(self._lines.get(model, {}).items()):
            yield key, next(iter(tickets))

    def take(self, model: str, key: str, ticket: T) -> None:
        """It waits no more and was served: its key and model are last now."""
        self.leave(model, key, ticket)
        keys = self._lines.get(model)
        if keys is not None:
            self._lines.move_to_end(model)
            if key in keys:
                keys.move_to_end(key)

    def leave(self, model: str, key: str, ticket: T) -> None:
        """It waits no more, if it did."""
        keys = self._lines.get(model)
        tickets = keys.get(key) if keys is not None else None
        if keys is None or tickets is None or tickets.pop(ticket, None) is None:
            return
        self._length -= 1
        self._waiting[key] -= 1
        if not self._waiting[key]:
            del self._waiting[key]
        if not tickets:
            del keys[key]
        if not keys:
            del self._lines[model]

    def _make_place(self, key: str) -> T:
        longest, count = max(self._waiting.items(), key=lambda item: item[1], default=("", 0))
        if count <= self._waiting[key] + 1:
            raise Overloaded(
                f"The engines are busy, and {self._length} exchanges wait for them already.",
                hint="Try again in a moment.",
                retry_after_s=2,
            )
        lines = [(model, keys[longest]) for model, keys in self._lines.items() if longest in keys]
        model, tickets = max(lines, key=lambda line: next(reversed(line[1].values())))
        newest = next(reversed(tickets))
        self.leave(model, longest, newest)
        return newest
