"""`open_ledger`: a data directory becomes a journal that takes entries: initialised, recovered, and its lost closed."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from rempart import __version__, limits
from rempart.errors import ConfigError, LedgerCorrupt, LedgerUnavailable
from rempart.ledger.keys.keystore import Keystore
from rempart.ledger.keys.vault import Vault
from rempart.ledger.log.checkpoint import Signer, Verifier, check_name
from rempart.ledger.reading.epochs import require_current
from rempart.ledger.reading.previous import state_of
from rempart.ledger.reading.witnessed import check_not_behind
from rempart.ledger.store.files import make_directory, replace_durably
from rempart.ledger.store.logfiles import VKEY, ledger_directory, previous_directory, previous_logs
from rempart.ledger.store.segments import initialise, spare_path
from rempart.ledger.writing.journal import Journal, Voice, new_boot
from rempart.ledger.writing.log_key import signer_of
from rempart.ledger.writing.lost import close_lost
from rempart.ledger.writing.recover import Recovered, origin_hash, recover
from rempart.ledger.writing.retirement import TakeApart, retire_in_child
from rempart.ledger.writing.sequencer import Sequencer
from rempart.wire.facts import Fact

_INITIALISED: Final = ("one", "initialised")


def read_vkey(data: Path) -> str:
    """The verifier key of the log. Raises `LedgerCorrupt` when there is no log."""
    try:
        return (ledger_directory(data) / VKEY).read_text(errors="replace").strip()
    except OSError as error:
        raise LedgerCorrupt(
            f"There is no ledger in {data}.", hint="Start the server once, or give its directory with --data."
        ) from error


async def open_ledger(
    data: Path,
    keystore: Keystore,
    *,
    origin: str,
    strict: bool,
    clock: Callable[[], float] = time.time,
    take_apart: TakeApart = retire_in_child,
) -> Journal:
    """The caller owns `data`, and has it until the journal is closed. `origin` empty: as it was, or one made now.

    Raises `LedgerCorrupt`, `KeystoreError`, `ConfigError` when the origin is another one, `LedgerUnavailable`.
    """
    signer = _prepare(data, keystore, origin)
    recovered = _recover(ledger_directory(data), signer)
    check_not_behind(ledger_directory(data))
    require_current(ledger_directory(data), keystore)
    epoch = keystore.epoch
    sequencer = Sequencer(recovered.opened, strict=strict, take_apart=take_apart)
    try:
        await sequencer.start()
    except LedgerUnavailable:
        await sequencer.close()
        raise
    vault = Vault(keystore)
    journal = Journal(sequencer, vault, Voice(log=keystore.one("log-id")[:16].hex(), boot=new_boot()), clock)
    for lost in recovered.lost:
        await close_lost(journal, lost)
    facts: dict[str, Fact] = {"version": __version__, "lost": len(recovered.lost), "epoch": epoch}
    behind = _clock_behind_s(recovered.last_time, clock())
    if behind:
        facts["clock_behind_s"] = behind
    before = previous_logs(ledger_directory(data))
    if before and not recovered.opened.next_index:
        facts["continues"] = state_of(previous_directory(ledger_directory(data), before[-1]))
    await journal.event("start", facts)
    return journal


def _prepare(data: Path, keystore: Keystore, origin: str) -> Signer:
    directory = ledger_directory(data)
    path = directory / VKEY
    known = Verifier.from_vkey(path.read_text()).name if path.exists() else ""
    if keystore.get(*_INITIALISED) is not None and not known:
        raise LedgerCorrupt(
            f"The ledger of {data} was here and is gone.",
            hint="Restore ledger/ from its copy; keys/ alone is not enough.",
        )
    if known and origin and origin != known and origin not in _continued(directory):
        raise ConfigError(
            f"This ledger's origin is {known!r}, the configuration says {origin!r}.",
            hint="The origin is fixed when a ledger begins: take ledger.origin out, or use another directory.",
        )
    name = known or origin or f"rempart.local/{keystore.one('log-id')[:4].hex()}"
    try:
        check_name(name)
    except ValueError as error:
        raise ConfigError(f"ledger.origin: {error}.", hint="Use a name such as llm.hospital.example/log.") from error
    if known:
        signer = signer_of(keystore, directory, Verifier.from_vkey(path.read_text()))
    else:
        signer = Signer(name, keystore.one("log-key"))
        make_directory(directory)
        replace_durably({path: f"{signer.verifier.vkey}\n".encode()}, 0o644)
    if keystore.get(*_INITIALISED) is None:
        try:
            initialise(directory / "segments", origin_hash(name))
        except OSError as error:
            raise LedgerUnavailable(
                f"The ledger cannot be begun in {directory}: {error.strerror}.",
                hint=f"It needs {2 * limits.segment_bytes >> 20} MiB at first; free some space, or choose --data.",
            ) from error
        keystore.put({_INITIALISED: b"1"})
    return signer


def _continued(directory: Path) -> set[str]:
    """Origins of the logs that this one continues: the configuration may still name the first."""
    found = (previous_directory(directory, number) / VKEY for number in previous_logs(directory))
    return {Verifier.from_vkey(path.read_text()).name for path in found}


def _recover(directory: Path, signer: Signer) -> Recovered:
    """What a crash left half made is taken away first: on a full disk recovery needs its room."""
    segments = directory / "segments"
    for path in (spare_path(segments), *segments.glob("*.new")):
        path.unlink(missing_ok=True)
    try:
        return recover(directory, signer)
    except OSError as error:
        raise LedgerUnavailable(
            f"The ledger in {directory} cannot be recovered: {error.strerror}.",
            hint=f"It needs {2 * limits.segment_bytes >> 20} MiB; free some space on its disk.",
        ) from error


def _clock_behind_s(last: str, now: float) -> int:
    """Whole seconds by which the clock stands before the last entry's time."""
    if not last:
        return 0
    return max(int(datetime.strptime(last, "%Y-%m-%dT%H:%M:%S.%f%z").astimezone(UTC).timestamp() - now), 0)
