"""`ErasureVerbs`: erasure, holds and expiry as commands of the owner, whether a server runs or not."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import msgspec

from rempart.errors import ErasureRefused
from rempart.gateway.administration import Administration
from rempart.gateway.verbs import Verb, converted
from rempart.ledger.erasing import erase as erasing
from rempart.ledger.erasing import hold as holding
from rempart.ledger.erasing.expire import due, expire
from rempart.ledger.erasing.records import Records

_OPERATOR = "operator"
_FAILS = ("That cannot be done", "See 'rempart ledger --help'.")


class _Erase(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    scope: Literal["subject", "actor", "exchange"]
    name: str
    ground: str = ""
    key: str = ""


class _Hold(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    id: str
    ground: str
    scope: Literal["subject", "actor", "exchange"]
    names: tuple[str, ...]
    key: str = ""


class _Named(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    id: str
    key: str = ""


class _Who(NamedTuple):
    by: str
    role: str


class ErasureVerbs:
    """`key` in the arguments is the text of an API key: who asks. Without one it is the operator of this machine."""

    def __init__(self, records: Records, administration: Administration) -> None:
        self._records = records
        self._administration = administration

    def verbs(self) -> dict[str, Verb]:
        """By name."""
        return {
            "erasure.plan": self._plan,
            "erasure.erase": self._erase,
            "erasure.due": self._due,
            "erasure.expire": self._expire,
            "erasure.backup_destroyed": self._backup_destroyed,
            "hold.begin": self._hold,
            "hold.release": self._release,
            "hold.list": self._holds,
        }

    async def _plan(self, args: dict[str, Any]) -> Any:
        return msgspec.to_builtins(await erasing.plan(self._records, self._order(args)))

    async def _erase(self, args: dict[str, Any]) -> Any:
        return msgspec.to_builtins(await erasing.erase(self._records, self._order(args)))

    def _order(self, args: dict[str, Any]) -> erasing.Order:
        given = converted(args, _Erase, *_FAILS)
        who = self._who(given.key)
        return erasing.Order(scope=given.scope, name=given.name, ground=given.ground, by=who.by, role=who.role)

    async def _due(self, args: dict[str, Any]) -> Any:
        return msgspec.to_builtins(await due(self._records))

    async def _expire(self, args: dict[str, Any]) -> Any:
        return msgspec.to_builtins(await expire(self._records))

    async def _backup_destroyed(self, args: dict[str, Any]) -> Any:
        given = converted(args, _Named, *_FAILS)
        who = self._who(given.key)
        return {"index": await erasing.forget_backup(self._records, given.id, who.by, who.role)}

    async def _hold(self, args: dict[str, Any]) -> Any:
        given = converted(args, _Hold, *_FAILS)
        who = self._who(given.key)
        order = holding.Order(
            id=given.id, ground=given.ground, scope=given.scope, names=given.names, by=who.by, role=who.role
        )
        return msgspec.to_builtins(await holding.begin_hold(self._records, order))

    async def _release(self, args: dict[str, Any]) -> Any:
        given = converted(args, _Named, *_FAILS)
        who = self._who(given.key)
        done, released = await holding.release(self._records, given.id, who.by, who.role)
        return {**msgspec.to_builtins(done), "released": released}

    async def _holds(self, args: dict[str, Any]) -> Any:
        return msgspec.to_builtins(await holding.standing(self._records))

    def _who(self, key: str) -> _Who:
        """Raises `Unauthenticated`, `ErasureRefused`."""
        if not key:
            return _Who(_OPERATOR, _OPERATOR)
        caller = self._administration.authenticate(key)
        if caller.role not in holding.RELEASE_ROLES:
            raise ErasureRefused(
                f"A key of the role {caller.role} may not do this.", hint="Give one of the role admin or auditor."
            )
        return _Who(caller.actor, caller.role)
