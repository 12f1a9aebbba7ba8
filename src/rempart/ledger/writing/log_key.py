"""`LogKey.begin` and `finish`: a log changes the key it signs with, without stopping (ADR 0005).

1. The new key is durable in the keystore, as `log-key-next`.
2. An entry names both keys; from now on both sign every checkpoint.
3. The handover, which proves that entry under a checkpoint of both, is durable: it leads from the old key to the new.
4. `finish`: the witnesses have cosigned under the new key. The old one is destroyed, the new one takes its place.
5. An entry says so, and `log.vkey` is the new key.

What a crash cuts off between 1 and 3 or within 4 and 5 is done at the next start (`resume`). The caller has the erasure
lock.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from rempart import limits
from rempart.errors import KeystoreError, LedgerCorrupt, LedgerUnavailable, UsageError
from rempart.ledger.keys.keystore import KEY_BYTES, Keystore
from rempart.ledger.log.checkpoint import Signer, Verifier
from rempart.ledger.log.handover import BEGUN, ENDED, TYPE, Handover, led_to
from rempart.ledger.log.policy import NONE, Policy
from rempart.ledger.log.proof import encode
from rempart.ledger.reading.handovers import handover_path, parse_handover, read_handovers
from rempart.ledger.reading.pack import proof_of
from rempart.ledger.reading.prove import prove
from rempart.ledger.reading.witnessed import check_own_line, read_witnessed
from rempart.ledger.store.files import replace_durably
from rempart.ledger.store.logfiles import VKEY, read_file
from rempart.ledger.writing.journal import Journal

_NOW: Final = ("one", "log-key")
_NEXT: Final = ("one", "log-key-next")
_LOG_MODE: Final = 0o644
_AGAIN: Final = "Look at the disk and the server's log, then give the command again."
_FITTING: Final = "Restore the keys of the same installation, no older than its last change of the log's key."


class Changed(msgspec.Struct, frozen=True, kw_only=True):
    """How far a change of the key has come."""

    change: str
    """`begun`: both keys sign. `ended`: the old one is destroyed."""
    old: str
    """Verifier keys."""
    new: str
    index: int
    """Of the entry that says so."""


def signer_of(keystore: Keystore, ledger: Path, known: Verifier) -> Signer:
    """What signs the log of `known`, which its directory names. Raises `KeystoreError` when the keys do not fit it."""
    signer, after = _signers(keystore, known.name)
    if after is not None and after.verifier.vkey == known.vkey:
        _promote(keystore, after)  # these keys were copied before the change was finished, the ledger after it
        signer, after = after, None
    fitting = {one.verifier.vkey for one in (signer, after) if one is not None}
    led = led_to(known, read_handovers(ledger)).vkey
    if led not in fitting or (known.vkey not in fitting and led != signer.verifier.vkey):
        raise KeystoreError(f"These keys are not those of the log {known.name}.", hint=_FITTING)
    return Signer(known.name, signer.seed, after)


def _signers(keystore: Keystore, name: str) -> tuple[Signer, Signer | None]:
    """The key, and the one that it is changed to."""
    now, after = keystore.get(*_NOW), keystore.get(*_NEXT)
    if now is None:
        raise KeystoreError(f"The key of the log {name} is not in this keystore.", hint=_FITTING)
    return Signer(name, now), None if after is None else Signer(name, after)


def _promote(keystore: Keystore, after: Signer) -> int:
    return keystore.destroy([_NEXT], {_NOW: after.seed})


class LogKey:
    """One per site."""

    def __init__(self, ledger: Path, journal: Journal, policy: Callable[[], Policy | None]) -> None:
        """`ledger` is `<data>/ledger`; `policy`: that of the log's witnesses, as it is configured now."""
        self._ledger = ledger
        self._journal = journal
        self._policy = policy

    async def begin(self) -> Changed:
        """Raises `UsageError` when a change is under way, `LedgerUnavailable` when the disk fails."""
        old, new = await self._journal.vault.ask(self._both)
        if self._handover(old, new) is not None:
            raise UsageError(
                "The log is changing its key already.", hint="Finish that first: rempart keys rotate-log --finish."
            )
        return await self._introduce(old, new)

    async def resume(self) -> None:
        """What a crash cut off. Raises `LedgerUnavailable`."""
        known = self._known()
        signer, after = await self._journal.vault.ask(lambda keystore: _signers(keystore, known.name))
        if after is not None and self._handover(signer, after) is None:
            await self._introduce(signer, after)
        if signer.verifier.vkey != known.vkey:
            await self._settle(signer, self._led_here(signer))

    async def finish(self) -> Changed:
        """Raises `UsageError` with what is still to be done before."""
        known = self._known()
        old, new = await self._journal.vault.ask(lambda keystore: _signers(keystore, known.name))
        handover = None if new is None else self._handover(old, new)
        if new is None or handover is None:
            raise UsageError("The log is not changing its key.", hint="Begin with: rempart keys rotate-log.")
        self._require_witnesses(new.verifier)
        await self._journal.vault.ask(lambda keystore: _promote(keystore, new))
        return await self._settle(new, handover)

    def _known(self) -> Verifier:
        return Verifier.from_vkey(read_file(self._ledger / VKEY).decode())

    def _both(self, keystore: Keystore) -> tuple[Signer, Signer]:
        """In the keystore's thread: the new key is made unless there is one."""
        name = self._known().name
        old, new = _signers(keystore, name)
        if new is None:
            new = Signer(name, secrets.token_bytes(KEY_BYTES))
            keystore.put({_NEXT: new.seed})
        return old, new

    def _handover(self, old: Signer, new: Signer) -> Handover | None:
        between = (old.verifier.vkey, new.verifier.vkey)
        return next((one for one in read_handovers(self._ledger) if (one.old.vkey, one.new.vkey) == between), None)

    def _led_here(self, signer: Signer) -> Handover:
        """`signer_of` has seen that there is one."""
        return next(one for one in read_handovers(self._ledger) if one.new.vkey == signer.verifier.vkey)

    async def _introduce(self, old: Signer, new: Signer) -> Changed:
        names = {"old": old.verifier.vkey, "new": new.verifier.vkey}
        receipt = await self._journal.event(TYPE, {"change": BEGUN, **names})
        await self._journal.sequencer.sign_with(Signer(old.verifier.name, old.seed, new))
        await self._covered(receipt.index)
        await asyncio.to_thread(self._hand_over, receipt.index)
        return Changed(change=BEGUN, index=receipt.index, **names)

    def _hand_over(self, index: int) -> None:
        data = encode(proof_of(prove(self._ledger / "log", index)))
        parse_handover(index, data)  # it has to hold for ever: look before it is kept
        try:
            replace_durably({handover_path(self._ledger, index): data}, _LOG_MODE)
        except OSError as error:
            raise LedgerUnavailable(f"The handover cannot be written: {error.strerror}.", hint=_AGAIN) from error

    async def _covered(self, index: int) -> None:
        try:
            async with asyncio.timeout(limits.log_key_covered_s):
                while self._journal.state().tree_size <= index:
                    await asyncio.sleep(limits.integrate_s / 10)
        except TimeoutError as error:
            raise LedgerUnavailable("The entry is not under a checkpoint yet.", hint=_AGAIN) from error

    def _require_witnesses(self, new: Verifier) -> None:
        policy = self._policy()
        if policy is None:
            return
        check_own_line(policy, new)
        note = read_witnessed(self._ledger)
        if policy.quorum == NONE:
            return
        try:
            new.open(note or b"")
        except LedgerCorrupt as error:
            raise UsageError(
                "The witnesses have not cosigned a checkpoint under the new key yet.",
                hint="Give the new key to their operators, beside the old one, and wait for their next cosignature.",
            ) from error

    async def _settle(self, signer: Signer, handover: Handover) -> Changed:
        await self._journal.sequencer.sign_with(signer)
        names = {"old": handover.old.vkey, "new": handover.new.vkey}
        receipt = await self._journal.event(TYPE, {"change": ENDED, "handover": handover.index, **names})
        await asyncio.to_thread(replace_durably, {self._ledger / VKEY: f"{signer.verifier.vkey}\n".encode()}, _LOG_MODE)
        return Changed(change=ENDED, index=receipt.index, **names)
