"""`Memory.hold`: the latest checkpoint of each log that a witness cosigned, one file per origin.

A file is the note as the witness itself cosigned it: its own signature shows damage. It is replaced durably before
anything is answered. What stands here always extends everything that was ever answered, whenever the process is killed:

- Killed before the rename, or a write that failed: the old note stays, and nothing was answered.
- Killed between the rename and the answer: the new note stays. Its sender asks again and learns its size.

At the start each file is written anew, since what is read back may be the page cache and not the disk. An origin that
was cosigned before and has no file any more is refused: a witness that forgets could be shown another history.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Final

from rempart.errors import LedgerCorrupt, LedgerUnavailable
from rempart.ledger.keys.keystore import Keystore
from rempart.ledger.log.checkpoint import Checkpoint, read_note, read_text, signed_by
from rempart.ledger.log.cosignature import CosignatureVerifier
from rempart.ledger.store.files import make_directory, replace_durably

_SEEN: Final = "witnessed"
_HINT: Final = "Restore <data>/witness from its newest copy. A witness that forgets must not go on under its old key."


class Held:
    """One origin, while nobody else may change it."""

    def __init__(self, memory: Memory, origin: str) -> None:
        self._memory = memory
        self._origin = origin

    @property
    def latest(self) -> Checkpoint | None:
        """None when nothing of it was ever cosigned."""
        return self._memory.latest(self._origin)

    def keep(self, note: bytes) -> None:
        """Durable when it returns. Raises `LedgerUnavailable`; the latest is then what it was."""
        self._memory._keep(self._origin, note)


class Memory:
    """Safe for several threads; the process owns the directory."""

    def __init__(self, directory: Path, keystore: Keystore, latest: Mapping[str, Checkpoint | None]) -> None:
        self._directory = directory
        self._keystore = keystore
        self._latest = dict(latest)
        self._locks = {origin: threading.Lock() for origin in latest}
        self._keys = threading.Lock()
        """The keystore serves one at a time."""

    @classmethod
    def open(cls, directory: Path, origins: Iterable[str], keystore: Keystore, verifier: CosignatureVerifier) -> Memory:
        """`verifier` is the witness's own key. Raises `LedgerCorrupt` when a file is damaged or missing."""
        make_directory(directory)
        latest: dict[str, Checkpoint | None] = {}
        again: dict[Path, bytes] = {}
        for origin in origins:
            path = directory / _file_name(origin)
            note = _read(path)
            seen = keystore.get(_SEEN, _file_name(origin)) is not None
            if note is None:
                if seen:
                    raise LedgerCorrupt(f"What this witness cosigned of {origin} is gone: {path}.", hint=_HINT)
                latest[origin] = None
                continue
            latest[origin] = _check(note, origin, path, verifier)
            again[path] = note
            if not seen:
                keystore.put({(_SEEN, _file_name(origin)): b"1"})
        try:
            replace_durably(again)
        except OSError as error:
            raise _unavailable(error) from error
        return cls(directory, keystore, latest)

    @contextlib.contextmanager
    def hold(self, origin: str) -> Iterator[Held]:
        """Compare and persist in one: nobody else sees or changes this origin meanwhile. `KeyError` when unknown."""
        with self._locks[origin]:
            yield Held(self, origin)

    def latest(self, origin: str) -> Checkpoint | None:
        return self._latest[origin]

    def _keep(self, origin: str, note: bytes) -> None:
        name = _file_name(origin)
        try:
            replace_durably({self._directory / name: note})
        except OSError as error:
            raise _unavailable(error) from error
        if self._latest[origin] is None:
            with self._keys:
                self._keystore.put({(_SEEN, name): b"1"})
        self._latest[origin] = read_text(read_note(note).text)


def _file_name(origin: str) -> str:
    """Origins hold slashes."""
    return sha256(origin.encode()).hexdigest()


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise LedgerCorrupt(f"{path} cannot be read: {error.strerror}.", hint="Look at the disk.") from error


def _check(data: bytes, origin: str, path: Path, verifier: CosignatureVerifier) -> Checkpoint:
    try:
        note = read_note(data)
        checkpoint = read_text(note.text)
        whole = bool(signed_by(verifier, note)) and checkpoint.origin == origin
    except LedgerCorrupt as error:
        raise LedgerCorrupt(f"{path} is damaged: {error.message}", hint=_HINT) from error
    if not whole:
        raise LedgerCorrupt(f"{path} is not what this witness cosigned of {origin}.", hint=_HINT)
    return checkpoint


def _unavailable(error: OSError) -> LedgerUnavailable:
    return LedgerUnavailable(
        f"The witness cannot keep what it would cosign: {error.strerror}.", hint="Look at its disk.", retry_after_s=5
    )
