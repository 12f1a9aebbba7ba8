"""`begin_hold` and `release`: exchanges stay readable, whatever is erased or expires, until two people let them go.

A hold covers chosen exchanges, or those about a person or of a key's owner, those to come among them. It keeps what was
said, not who: name the people in the file of the case.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from rempart import limits
from rempart.errors import ErasureRefused, NotFound, UsageError
from rempart.ledger.erasing.certificate import check_ground
from rempart.ledger.erasing.erase import resolve
from rempart.ledger.erasing.fulfil import Fulfilled, carry_out, finish
from rempart.ledger.erasing.keeping import readable_or_held, wanted_by
from rempart.ledger.erasing.pending import Decided
from rempart.ledger.erasing.records import Records
from rempart.ledger.erasing.scan import Wanted
from rempart.ledger.keys.holds import Hold, held, holds
from rempart.ledger.keys.keystore import Keystore

RELEASE_ROLES = frozenset({"admin", "auditor"})


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """A hold to be begun."""

    id: str
    """A short word: a-z, 0-9 and -."""
    ground: str
    scope: Literal["subject", "actor", "exchange"]
    names: tuple[str, ...]
    """One identity in clear or pseudonym; or ids of exchanges."""
    by: str
    role: str


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """A hold in force."""

    hold: Hold
    exchanges: int
    """Whose keys it has; those to come are counted once something of them is about to be destroyed."""


async def begin_hold(records: Records, order: Order) -> Fulfilled:
    """What it covers is held when it returns. Raises `UsageError`, `NotFound`, `KeystoreError`."""
    check_ground(order.ground)
    if not 1 <= len(order.names) <= limits.hold_exchanges_max:
        raise UsageError(f"A hold has 1 to {limits.hold_exchanges_max} exchanges.", hint="Begin several.")
    async with records.lock:
        await finish(records)
        if any(one.id == order.id for one in await records.ask(holds)):
            raise UsageError(f"There is a hold {order.id} already.", hint="Give it another id.")
        resolved = [await resolve(records, order.scope, name) for name in order.names]
        wanted = Wanted(order.scope, tuple(name for one in resolved for name in one.names))
        scanned = await records.scan(wanted)
        ids = {id_ for some in await records.ask_all(scanned.exchanges.values(), readable_or_held) for id_ in some}
        if order.scope == "exchange" and len(ids) < len(set(wanted.names)):
            raise NotFound(
                f"{len(set(wanted.names)) - len(ids)} of these exchanges are not there, or can be read no more.",
                hint="See 'rempart ledger show ID'.",
            )
        decided = Decided(
            verb="hold",
            wanted=wanted,
            ground=order.ground,
            by=order.by,
            role=order.role,
            hold=order.id,
            counts={"exchanges": len(ids)},
        )
        return await carry_out(records, decided, scanned)


async def release(records: Records, hold_id: str, by: str, role: str) -> tuple[Fulfilled, bool]:
    """The first of two people agrees, the second one releases: then what only the hold kept ends. Whether it did.

    `by` is a pseudonym. Raises `ErasureRefused` when it is nobody's who may, or the first one's again; `NotFound`.
    """
    if role not in RELEASE_ROLES:
        raise ErasureRefused(
            "A hold is released by two people with keys of the role admin or auditor.", hint="Give such a key."
        )
    async with records.lock:
        await finish(records)
        found = next((one for one in await records.ask(holds) if one.id == hold_id), None)
        if found is None:
            raise NotFound(f"There is no hold {hold_id}.", hint="See 'rempart ledger holds'.")
        if by in found.released_by:
            raise ErasureRefused(
                f"The release of hold {hold_id} was agreed by the same person.", hint="It takes a second one."
            )
        last = bool(found.released_by)
        names = await records.ask(lambda keystore: tuple(held(keystore, hold_id)))
        decided = Decided(
            verb="release" if last else "agree",
            wanted=wanted_by(found) or Wanted("exchange", names if last else ()),
            ground=found.reason,
            by=by,
            role=role,
            hold=hold_id,
            counts={"exchanges": len(names)},
        )
        return await carry_out(records, decided), last


async def standing(records: Records) -> list[Standing]:
    """All that are in force, by id."""
    return await records.ask(_standing)


def _standing(keystore: Keystore) -> list[Standing]:
    return [Standing(hold=one, exchanges=len(held(keystore, one.id))) for one in holds(keystore)]
