"""`rempart.gateway.reads`: what was said is shown for a reason that can be read."""

from __future__ import annotations

from typing import Any

import pytest

from rempart.errors import UsageError
from rempart.gateway.reads import Reads
from rempart.identity.caller import AUDITOR, Caller

CALLER = Caller(key="k", actor="a", role=AUDITOR)


def _reads() -> Reads:
    unused: Any = None
    return Reads(unused, unused, four_eyes=False)


@pytest.mark.parametrize("reason", ["", " \t", "\u200b", "\u2800", "...", "\u202e\u2060", "x" * 1_025])
def test_what_cannot_be_read_is_no_reason(reason: str) -> None:
    with pytest.raises(UsageError, match="for a stated reason"):
        _reads().disclosing(CALLER, "", reason)


@pytest.mark.parametrize("reason", ["file 7/26", "漏洩の調査", "х"])
def test_a_reason_may_be_in_any_script(reason: str) -> None:
    assert _reads().disclosing(CALLER, "", reason).key == "k"
