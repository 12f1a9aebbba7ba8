"""`Ask`: what an exchange wants of the router, and what is told of its engine afterwards (values)."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final, Literal, TypeAlias

import msgspec

from rempart.wire.requests import Call

Policy: TypeAlias = Literal["least-outstanding", "prefix", "session"]
LEAST: Final = "least-outstanding"
UNSAID_TOKENS: Final = 1_024
"""Held free in an engine's KV cache for an answer whose length the request does not bound."""


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """One exchange that needs an engine."""

    call: Call
    tenant: str
    """Whose it is. What one tenant asked never steers what another asks; tenants take turns in the queue."""
    models: frozenset[str] | None = None
    """Models that may answer it; None: all."""
    session: str = ""
    """What belongs together, as the client names it; empty: it does not."""

    @property
    def tokens(self) -> int:
        """What it may take of a KV cache."""
        return self.call.tokens_prompt + (self.call.tokens_asked or UNSAID_TOKENS * self.call.choices)


class Verdict(Enum):
    """What an exchange says of the engine that had it."""

    SERVED = "served"
    """It did what it should; also when it refused what no engine can take."""
    FAILED = "failed"
    """It answered, with an error or with nonsense. It may be the request's own fault."""
    GONE = "gone"
    """It could not be reached, died, or fell silent."""
    NOTHING = "nothing"
    """Nothing: the client left, the server stopped, or it was never asked."""


class EngineState(msgspec.Struct, frozen=True, kw_only=True):
    """One engine, for `/metrics`."""

    outstanding: int
    breaker: str
    """`closed`, `half-open` or `open`."""


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What one process routed since its start. Models are those of this site."""

    waiting: int
    """Exchanges in the queue now."""
    engines: Mapping[str, EngineState]
    choices: Mapping[tuple[str, str], int]
    """(model, why this engine) -> how often; why: `least`, `session`, `prefix`, or `overloaded` (its prefix was with
    an engine that had too much to do)."""
    blocks: Mapping[tuple[str, str], int]
    """(model, `asked` or `matched`) -> blocks of prompts of models whose policy is `prefix`."""
    retries: Mapping[str, int]
    """Model -> exchanges that went to another engine after one failed."""
    fallbacks: Mapping[tuple[str, str], int]
    """(model that was asked, model that answered)."""
    turned_away: Mapping[str, int]
    """`full` or `late` -> exchanges that the queue did not take, or kept too long."""
