"""`Fact`: what may stand in clear in an entry of the ledger (values).

Strings of a known list, booleans and integers (ADR 0001); never a text of somebody's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

Scalar: TypeAlias = str | bool | int
Fact: TypeAlias = Scalar | list[str] | Mapping[str, Scalar]
