"""`Tally.see`: what the entries of one run say of each engine and key, summed (values in, sums out)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final

import msgspec

_UNSAID_TOKENS: Final = 4_096
"""What an answer may take whose request sets no limit, and whose end nobody saw."""
_BYTES_A_TOKEN: Final = 4
_TEMPLATE_TOKENS: Final = 64
"""What a chat template adds to a prompt that was estimated."""
_INEXACT_TOKENS: Final = 16


class Parameters(msgspec.Struct, frozen=True):
    """Those that say how long an answer may be."""

    n: int = 1
    max_tokens: int = 0
    max_completion_tokens: int = 0


class Entry(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What is looked at; absent fields are empty."""

    type: str
    time: str
    boot: str = ""
    exchange: str = ""
    engine: str = ""
    key: str = ""
    outcome: str = ""
    tried: tuple[str, ...] = ()
    operation: str = ""
    request: int | None = None
    tokens_prompt: int = 0
    tokens_completion: int = 0
    tokens_source: str = ""
    parameters: Parameters = Parameters()
    body_bytes: int = 0
    up_s: int = 0
    engines: Mapping[str, int] = {}
    keys: Mapping[str, int] = {}
    part: int = 0


class Allowance(msgspec.Struct, frozen=True):
    """Tokens that exchanges without an exact count may have taken beyond what is recorded of them."""

    prompt: int = 0
    completion: int = 0


class Tally:
    """Of one run, in order of the entries."""

    def __init__(self) -> None:
        self.engines: dict[str, Counter[str]] = {}
        self.keys: Counter[str] = Counter()
        self._allowances: dict[str, Counter[str]] = {}
        self._asked: dict[str, Entry] = {}
        """Requests without a response yet."""

    def see(self, entry: Entry) -> None:
        """A request or a response. What a crash cut off is counted nowhere."""
        if entry.outcome == "lost":
            self._lose(entry.exchange)
            return
        counts = self.engines.setdefault(entry.engine, Counter()) if entry.engine else Counter()
        if entry.type == "request":
            counts["dispatched"] += 1
            self._asked[entry.exchange] = entry
            return
        self.keys[entry.key] += 1
        if entry.request is None:
            return  # refused: no engine saw it
        asked = self._asked.pop(entry.exchange, None)
        if entry.tried:
            self._see_tried(entry, asked)
        counts["answered" if entry.outcome == "ok" else "failed"] += 1
        counts["tokens_prompt"] += entry.tokens_prompt
        counts["tokens_completion"] += entry.tokens_completion
        self._allow(entry.engine, _allowance(entry, Parameters() if asked is None else asked.parameters))

    def _see_tried(self, entry: Entry, asked: Entry | None) -> None:
        """Engines that had it and failed: its request names the first, its response the last."""
        for engine in entry.tried:
            self.engines.setdefault(engine, Counter())["failed"] += 1
            if asked is not None:  # it may have read the prompt, and have begun to answer
                self._allow(engine, Allowance(asked.body_bytes + _TEMPLATE_TOKENS, _most(asked.parameters)))
        for engine in (*entry.tried[1:], entry.engine):
            self.engines.setdefault(engine, Counter())["dispatched"] += 1

    def _lose(self, exchange: str) -> None:
        """When only a worker died the run goes on, and with it the engine, which may have served it."""
        asked = self._asked.pop(exchange, None)
        if asked is not None:
            self._allow(asked.engine, Allowance(asked.body_bytes + _TEMPLATE_TOKENS, _most(asked.parameters)))

    def _allow(self, engine: str, extra: Allowance) -> None:
        allowed = self._allowances.setdefault(engine, Counter())
        allowed["prompt"] += extra.prompt
        allowed["completion"] += extra.completion

    def of(self, engine: str) -> dict[str, int]:
        """Its sums."""
        counts = self.engines.get(engine, Counter())
        return {
            name: counts[name] for name in ("dispatched", "answered", "failed", "tokens_prompt", "tokens_completion")
        }

    def allowance(self, engine: str) -> Allowance:
        counts = self._allowances.get(engine, Counter())
        return Allowance(counts["prompt"], counts["completion"])


def _allowance(entry: Entry, asked: Parameters) -> Allowance:
    if entry.outcome == "ok" and entry.tokens_source == "engine":
        if asked.n == 1 and entry.operation != "completion":
            return Allowance()
        # Several choices or prompts are counted from their texts, which may be a few tokens off.
        return Allowance(
            entry.tokens_prompt // 4 + _INEXACT_TOKENS,
            (entry.tokens_completion // 4) + _INEXACT_TOKENS * asked.n,
        )
    prompt = entry.tokens_prompt * _BYTES_A_TOKEN + _TEMPLATE_TOKENS  # it was estimated from its bytes
    return Allowance(prompt, max(_most(asked) - entry.tokens_completion, 0))


def _most(asked: Parameters) -> int:
    return (asked.max_tokens or asked.max_completion_tokens or _UNSAID_TOKENS) * asked.n
