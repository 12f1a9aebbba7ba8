"""`Report`: what a conformance run found of one engine, as data; `docs/engines.md` is made of it (values)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Protocol

import msgspec

from rempart.engines.port import Engine

State = Literal["passed", "failed", "skipped"]


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """One feature of one engine."""

    feature: str
    state: State
    reason: str = ""
    """Why it failed or was skipped, in the engine's own words where it said something."""
    seconds: float | None = None
    """Where the case measures a time."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All features of one engine, in the order of the suite."""

    engine: str
    version: str
    outcomes: tuple[Outcome, ...]

    def not_passed(self) -> dict[str, str]:
        """Feature -> state and reason, for all that did not pass."""
        return {one.feature: f"{one.state}: {one.reason}" for one in self.outcomes if one.state != "passed"}

    def failed(self) -> dict[str, str]:
        return {one.feature: one.reason for one in self.outcomes if one.state == "failed"}


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine itself says that it does."""

    running: int
    """Requests under way or waiting."""
    generated: int
    """Tokens said since it was started."""


class Subject(Protocol):
    """An engine that the suite may ask, disturb, stop and start again."""

    name: str
    version: str
    model: str
    embedding_model: str
    long_prompt: str
    """What keeps it busy for seconds, with `max_tokens` of `LONG_TOKENS` and `ignore_eos`."""
    tool_choice: Any
    """What makes it call the one tool that it is given, whatever the model would do."""
    lacks: Mapping[str, str]
    """Features that it is known not to have without refusing them -> why. A case that passes all the same fails."""
    failure: bytes
    """How it says in the middle of a stream that something went wrong, framed as its streams are."""
    nonsense: bytes
    """What is no part of any of its streams, framed in the same way."""

    @property
    def url(self) -> str:
        """Where it listens now."""
        ...

    def adapter(self, url: str) -> Engine:
        """A new adapter that asks it there."""
        ...

    async def load(self) -> Load: ...

    def pause(self) -> None:
        """It stops in its tracks: connections stay, nothing is answered."""
        ...

    def resume(self) -> None: ...

    def kill(self) -> None:
        """It is gone, without a word."""
        ...

    async def start(self) -> None:
        """Again, after `kill`; it may listen elsewhere. Returns when it can work."""
        ...
