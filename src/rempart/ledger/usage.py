"""`tokens_of_day`: what each key used today, read back from the ledger at a start."""

from __future__ import annotations

from pathlib import Path

from rempart.ledger import entry as entries
from rempart.ledger.reading import newest_first


def tokens_of_day(segments: Path, now: float) -> dict[str, int]:
    """Key id -> tokens of the UTC day of `now`: the last `meter` entries of the day, and the responses since.

    A meter of many keys is written in parts, 0 first.
    """
    day = entries.timestamp(now)[:10]
    used: dict[str, int] = {}
    for _, fields in newest_first(segments):
        if str(fields["time"])[:10] < day:
            break
        if fields["type"] == "meter":
            for key, tokens in fields["totals"].items():
                used[key] = used.get(key, 0) + tokens
            if fields["part"] == 0:
                break
        elif fields["type"] == "response":
            key = str(fields["key"])
            tokens = fields.get("tokens_prompt", 0) + fields.get("tokens_completion", 0)
            used[key] = used.get(key, 0) + tokens
    return used
