"""`collect_seldom`: the collector of cycles looks seldom in a process that serves."""

from __future__ import annotations

import gc
from typing import Final

_GARBAGE: Final = 20_000
"""Objects that may be in cycles before the collector looks."""


def collect_seldom() -> None:
    """What is loaded by now stays; of an exchange hardly anything is left to the collector of cycles."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GARBAGE)
