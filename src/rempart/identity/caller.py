"""`Caller`: who is asking, and what they may do (values)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from rempart.errors import Forbidden

USER: Final = "user"
AUDITOR: Final = "auditor"
ADMIN: Final = "admin"

PERMISSIONS: Final[Mapping[str, frozenset[str]]] = {
    USER: frozenset(),
    AUDITOR: frozenset({"read_ledger", "read_metrics", "read_bodies"}),
    ADMIN: frozenset({"read_ledger", "read_metrics"}),
}
"""Beyond asking models, which every role may."""


def _roles(permission: str) -> list[str]:
    return [role for role, may in PERMISSIONS.items() if permission in may]


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Per-key limits; None: none."""

    requests_per_minute: int | None = None
    tokens_per_day: int | None = None


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """The holder of a valid key."""

    key: str
    """Id of the key."""
    actor: str
    """Pseudonym of the key's owner."""
    role: str
    subject: str = ""
    """Pseudonym of the owner as a person whose data is recorded; empty when the key has no owner."""
    models: frozenset[str] | None = None
    """Models it may use; None: all."""
    limits: Limits = Limits()
    trust_subject_header: bool = False
    """This key belongs to a trusted proxy, whose `x-rempart-subject` names the person."""

    def may(self, permission: str) -> bool:
        return permission in PERMISSIONS[self.role]

    def require(self, permission: str) -> None:
        """Raises `Forbidden`."""
        if not self.may(permission):
            raise Forbidden(
                f"A key of the role {self.role!r} may not do this ({permission}).",
                hint=f"Ask an administrator for a key of the role {' or '.join(_roles(permission))}.",
            )

    def may_use(self, model: str) -> bool:
        return self.models is None or model in self.models
