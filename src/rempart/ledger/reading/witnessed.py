"""`check_witnessed`: what the witnesses cosigned must be the beginning of this log. Needs no network and no secret.

1. The witnessed checkpoint is opened by the policy: the log signed it, and the quorum cosigned it.
2. The tree under the log's own checkpoint must begin with the tree that it signs.

Without a policy (at a start) the first step is left out: that the log is not behind can be seen all the same.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from rempart.errors import ConfigError, LedgerCorrupt
from rempart.ledger.log.checkpoint import Checkpoint, Verifier, parse_note
from rempart.ledger.log.consistency import HINT, check_prefix
from rempart.ledger.log.policy import NONE, Policy
from rempart.ledger.reading.prove import Prover, TileReader


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How far the witnesses have followed a log."""

    size: int
    """Entries under the witnessed checkpoint."""
    witnesses: tuple[str, ...]
    """Who cosigned it, by the policy's names."""


def witnessed_path(ledger: Path) -> Path:
    """`ledger` is `<data>/ledger`."""
    return ledger / "witnessed" / "checkpoint"


def read_witnessed(ledger: Path) -> bytes | None:
    """The newest note that met the quorum; None when there is none. Raises `LedgerCorrupt`."""
    try:
        return witnessed_path(ledger).read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise LedgerCorrupt(
            f"{witnessed_path(ledger)} cannot be read: {error.strerror}.", hint="Look at the disk."
        ) from error


def check_own_line(policy: Policy, *keys: Verifier) -> None:
    """Raises `ConfigError` unless this log stands in the policy, with one of its keys."""
    known = {(log.key.name, log.key.public_key) for log in policy.logs}
    if not any((one.name, one.public_key) in known for one in keys):
        raise ConfigError(
            f"The policy does not name this log, {keys[-1].name}, with its key.",
            hint=f"It needs the line: log {keys[-1].vkey}",
        )


def check_witnessed(ledger: Path, policy: Policy) -> Standing:
    """Raises `LedgerCorrupt` with the name of what happened, also when there is no checkpoint that meets the quorum."""
    note = cosigned_note(ledger, policy)
    if note is None:
        return Standing(size=0, witnesses=())
    opened = policy.open(note)
    return Standing(size=opened.checkpoint.size, witnesses=tuple(sorted(opened.witnesses)))


def cosigned_note(ledger: Path, policy: Policy) -> bytes | None:
    """The newest note that met the quorum, once it holds; None when the policy asks for no witness and there is none.
    Raises `LedgerCorrupt` as `check_witnessed` does."""
    note = read_witnessed(ledger)
    if note is None:
        if policy.quorum == NONE:
            return None
        raise LedgerCorrupt(
            "No checkpoint of this log has been cosigned by its witnesses.",
            hint="Start the server with ledger.policy and wait; if there was one, its file was removed.",
        )
    _check(ledger, policy.open(note).checkpoint)
    return note


def check_not_behind(ledger: Path) -> None:
    """At a start. Raises `LedgerCorrupt` when the log is not what its witnesses cosigned."""
    note = read_witnessed(ledger)
    if note is None:
        return
    try:
        _, witnessed = parse_note(note)
    except LedgerCorrupt as error:
        raise LedgerCorrupt(f"{witnessed_path(ledger)} is damaged: {error.message}", hint=HINT) from error
    _check(ledger, witnessed)


def _check(ledger: Path, witnessed: Checkpoint) -> None:
    prover = Prover(ledger / "log")
    check_prefix(witnessed, prover.head, TileReader(ledger / "log", prover.head.size).node)
