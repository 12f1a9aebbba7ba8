"""`tokens_of_day`: what each key used today, read back from the ledger at a start."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Final

from rempart.ledger.log import entry as entries
from rempart.ledger.reading.find import newest_first
from rempart.ledger.store.logfiles import previous_directory, previous_logs

_TOKENS_MAX: Final = 2**53 - 1  # what an entry can hold


def tokens_of_day(ledger: Path, now: float) -> dict[str, int]:
    """Key id -> tokens of the UTC day of `now`: the last whole set of `meter` entries, and the responses since.

    A meter of many keys is written in parts; a crash may have cut a set off, which then does not count.
    A log that was begun anew goes on in the one that it continues. `ledger` is `<data>/ledger`.
    """
    day = entries.timestamp(now)[:10]
    used: dict[str, int] = {}
    meter: dict[str, int] = {}
    missing = -1
    before = (newest_first(previous_directory(ledger, one)) for one in reversed(previous_logs(ledger)))
    for _, fields in chain(newest_first(ledger), *before):
        if str(fields["time"])[:10] < day:
            break
        if fields["type"] == "meter":
            last = fields["part"] == fields["parts"] - 1
            if last:
                meter, missing = {}, fields["part"]
            if fields["part"] == missing:
                meter.update(fields["totals"])
                missing -= 1
                if missing < 0:
                    return _sum(used, meter)
        elif fields["type"] == "response":
            key = str(fields["key"])
            tokens = fields.get("tokens_prompt", 0) + fields.get("tokens_completion", 0)
            used[key] = min(used.get(key, 0) + tokens, _TOKENS_MAX)
    return used


def _sum(one: dict[str, int], other: dict[str, int]) -> dict[str, int]:
    return {key: min(one.get(key, 0) + other.get(key, 0), _TOKENS_MAX) for key in one.keys() | other.keys()}
