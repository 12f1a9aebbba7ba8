"""`Verb`: a command of the owner's, and `converted`: its arguments, checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, TypeVar

import msgspec

from rempart.errors import UsageError

T = TypeVar("T")
SAME_VERSION = "Use one version of rempart."


class Verb(Protocol):
    """One command of the control socket."""

    async def __call__(self, args: dict[str, Any]) -> Any: ...


def converted(args: Mapping[str, Any], kind: type[T], fails: str, hint: str = SAME_VERSION) -> T:
    """`fails`: what then is not so. Raises `UsageError`."""
    try:
        return msgspec.convert(args, kind)
    except msgspec.ValidationError as error:
        raise UsageError(f"{fails}: {error}.", hint=hint) from error
