"""`used_of_day`: what each key used today, read back from the ledger at a start."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Final

import msgspec

from rempart.ledger.log import entry as entries
from rempart.ledger.reading.find import newest_first
from rempart.ledger.store.logfiles import previous_directory, previous_logs

_TOKENS_MAX: Final = 2**53 - 1  # what an entry can hold


class Used(msgspec.Struct, frozen=True, kw_only=True):
    """Of one UTC day, by key."""

    tokens: dict[str, int]
    exchanges: dict[str, int]


def used_of_day(ledger: Path, now: float) -> Used:
    """What each key used on the UTC day of `now`: the last whole set of `meter` entries, and the responses since.

    A meter of many keys is written in parts; a crash may have cut a set off, which then does not count.
    A log that was begun anew goes on in the one that it continues. `ledger` is `<data>/ledger`.
    """
    day = entries.timestamp(now)[:10]
    used, meter = Used(tokens={}, exchanges={}), Used(tokens={}, exchanges={})
    missing = -1
    before = (newest_first(previous_directory(ledger, one)) for one in reversed(previous_logs(ledger)))
    for _, fields in chain(newest_first(ledger), *before):
        if str(fields["time"])[:10] < day:
            break
        if fields["type"] == "meter":
            last = fields["part"] == fields["parts"] - 1
            if last:
                meter, missing = Used(tokens={}, exchanges={}), fields["part"]
            if fields["part"] == missing:
                meter.tokens.update(fields["totals"])
                meter.exchanges.update(fields.get("exchanges", {}))
                missing -= 1
                if missing < 0:
                    return Used(tokens=_sum(used.tokens, meter.tokens), exchanges=_sum(used.exchanges, meter.exchanges))
        elif fields["type"] == "response":
            key = str(fields["key"])
            tokens = fields.get("tokens_prompt", 0) + fields.get("tokens_completion", 0)
            used.tokens[key] = min(used.tokens.get(key, 0) + tokens, _TOKENS_MAX)
            used.exchanges[key] = used.exchanges.get(key, 0) + 1
    return used


def _sum(one: dict[str, int], other: dict[str, int]) -> dict[str, int]:
    return {key: min(one.get(key, 0) + other.get(key, 0), _TOKENS_MAX) for key in one.keys() | other.keys()}
