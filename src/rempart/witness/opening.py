"""`open_witness`: a data directory becomes a witness: its keys made or found, its memory read.

<data>/witness/vkeys           verifier keys, one a line: Ed25519, then ML-DSA-44 where the library has it
<data>/witness/keys/           a keystore of its own, owner only
<data>/witness/logs/<sha256>   the latest cosigned checkpoint of one origin
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from rempart.errors import ConfigError, KeystoreError, LedgerCorrupt, MissingDependency
from rempart.ledger.keys.keystore import Keystore
from rempart.ledger.log.checkpoint import NoteKey, decode_vkey
from rempart.ledger.log.cosignature import ED25519, ML_DSA_44, Cosigner
from rempart.ledger.log.policy import Log, Policy
from rempart.ledger.store.files import replace_durably
from rempart.witness.clerk import Clerk
from rempart.witness.memory import Memory

_SEEDS: Final = {ED25519: "witness-ed25519", ML_DSA_44: "witness-ml-dsa-44"}
# tlog-cosignature: a name and an origin stand under an ML-DSA-44 signature with one byte of length.
_NAME_BYTES_MAX: Final = 255


def read_vkeys(data: Path) -> list[str]:
    """The verifier keys of the witness in `data`; empty when there is none."""
    try:
        return _path(data).read_text().split()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise KeystoreError(f"{_path(data)} cannot be read: {error.strerror}.") from error


def make_keys(data: Path, name: str) -> list[str]:
    """The verifier keys, made at first. The caller owns `data`. Raises `ConfigError`, `KeystoreError`."""
    with _keystore(data) as keystore:
        return [one.verifier.vkey for one in _cosigners(data, name, keystore)]


@contextlib.contextmanager
def open_witness(data: Path, name: str, logs: Sequence[Log]) -> Iterator[Clerk]:
    """The caller owns `data`. `name` is fixed when its keys are made; empty: as it was.

    Raises `ConfigError`, `KeystoreError`, `LedgerCorrupt` when what was cosigned is damaged or gone.
    """
    with _keystore(data) as keystore:
        cosigners = _cosigners(data, name, keystore)
        trusted: dict[str, tuple[NoteKey, ...]] = {}
        for log in logs:
            _check_length(log.key.name)
            trusted[log.key.name] = (*trusted.get(log.key.name, ()), log.key)
        memory = Memory.open(data / "witness" / "logs", trusted, keystore, cosigners[0].verifier)
        yield Clerk(trusted, memory, cosigners)


def read_logs(text: bytes) -> tuple[Log, ...]:
    """The logs to be witnessed: a C2SP tlog-policy with `log` lines, or verifier keys, one a line.

    Raises `ConfigError`, also when there is none.
    """
    lines = [line.strip() for line in text.splitlines()]
    keys = [line for line in lines if line and not line.startswith(b"#")]
    if not any(b" " in key or b"\t" in key for key in keys):
        text = b"".join([*(b"log %s\n" % key for key in keys), b"quorum none\n"])
    logs = Policy.parse(text).logs
    if not logs:
        raise ConfigError("There is no log to be witnessed.", hint="Give verifier keys ('rempart ledger key').")
    return logs


def _path(data: Path) -> Path:
    return data / "witness" / "vkeys"


@contextlib.contextmanager
def _keystore(data: Path) -> Iterator[Keystore]:
    directory = data / "witness" / "keys"
    if _path(data).exists() and not (directory / "root.key").exists():
        raise KeystoreError(f"The keys of the witness in {data} are gone.", hint="Restore <data>/witness from a copy.")
    keystore = Keystore.open(directory) if (directory / "root.key").exists() else Keystore.create(directory)
    try:
        yield keystore
    finally:
        keystore.close()


def _cosigners(data: Path, name: str, keystore: Keystore) -> list[Cosigner]:
    """Ed25519 first. One Ed25519 key bears one name only, so the name is fixed with it."""
    vkeys = read_vkeys(data)
    known = _name_of(vkeys[0]) if vkeys else ""
    if known and name and name != known:
        raise ConfigError(
            f"This witness is called {known!r}, not {name!r}.",
            hint="A witness keeps its name for ever: leave it out, or begin another one in another directory.",
        )
    if not (known or name):
        raise ConfigError("A witness needs a name.", hint="Such as witness.hospital.example/w1.")
    _check_length(known or name)
    try:
        made = [Cosigner(known or name, keystore.one(_SEEDS[ED25519]))]
    except ValueError as error:
        raise ConfigError(f"A witness cannot be called {name!r}: {error}.", hint="Such as w.example/w1.") from error
    with contextlib.suppress(MissingDependency):  # its Ed25519 key is enough
        made.append(Cosigner(known or name, keystore.one(_SEEDS[ML_DSA_44]), ML_DSA_44))
    told = [one.verifier.vkey for one in made]
    if vkeys and vkeys[0] != told[0]:
        raise KeystoreError("The keys of the witness do not belong together.", hint="Restore <data>/witness whole.")
    if vkeys != told:
        replace_durably({_path(data): "".join(f"{vkey}\n" for vkey in told).encode()}, 0o644)
    return made


def _name_of(vkey: str) -> str:
    try:
        return decode_vkey(vkey)[0]
    except LedgerCorrupt as error:
        raise KeystoreError("The file witness/vkeys is damaged.", hint="Restore <data>/witness from a copy.") from error


def _check_length(name: str) -> None:
    if len(name.encode()) > _NAME_BYTES_MAX:
        raise ConfigError(f"The name {name!r} has more than {_NAME_BYTES_MAX} bytes.", hint="Use a shorter one.")
