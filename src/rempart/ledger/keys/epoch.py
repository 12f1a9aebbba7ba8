"""`change`: keys are destroyed by a new root, in three steps that a crash may cut anywhere (ADR 0003, "Keystore").

First the new root is durable beside the old one, then one transaction puts everything under it, then `settle` decides:
whichever root opens the shards is the one. Every opening of a keystore settles too, so what a crash left is finished
by the same code:

1. No `root.key.new`: `root.key` opens the shards, or nothing does.
2. `root.key.new` opens them: the change was committed. What the old root needs elsewhere is destroyed, its bytes are
   overwritten, the new one takes its place. Each of the three may be done again.
3. `root.key` opens them: the change never was. The same is done to the new root.
4. Neither opens them: nothing is changed, so that what is missing can be brought back.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from rempart.errors import KeystoreError
from rempart.ledger.keys.rootfile import RootFile
from rempart.ledger.keys.rows import SHARDS, Rewrite, Row, Rows, State, full_name, shard_of
from rempart.ledger.keys.sealing import KEY_BYTES, NONCE_BYTES, Sealings

BEGUN: Final = ("one", "keystore")
"""The row that a keystore begins with: a database that holds it is nobody's to begin again."""
_HINT: Final = "root.key and the keystore's database belong together: restore both."


class Opened(msgspec.Struct, frozen=True):
    """The keys of one epoch."""

    epoch: int
    keys: tuple[bytes, ...]
    """Of the shards 0 to 255, 32 bytes each."""


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What a change is made for."""

    delete: frozenset[tuple[str, str]] = frozenset()
    replace: Mapping[tuple[str, str], bytes] = {}
    """New values, in clear."""
    drop: frozenset[tuple[str, str]] = frozenset()
    """Rows deleted without new keys for their shards."""
    renew: frozenset[int] = frozenset()
    """Numbers of shards that get new keys though nothing of theirs is destroyed."""


def begin(files: RootFile, rows: Rows, sealings: Sealings) -> Opened:
    """A new keystore. The caller has the lock; `root.key` is missing.

    One whose making was cut off is finished, or begun again where nothing was sealed yet. Raises `KeystoreError` when
    the database holds keys: a new root would make them unreadable for ever.
    """
    state = rows.state(durable=True)
    if next(rows.scan("one"), None) is not None:
        if files.staged() is not None:
            return settle(files, rows, sealings)
        raise KeystoreError(
            f"The database holds keys, but {files.path} is missing.",
            hint="Restore keys/ from its backup; another gateway's keystore needs a database of its own.",
        )
    empty = Opened(state.epoch, tuple(secrets.token_bytes(KEY_BYTES) for _ in range(SHARDS)))
    return change(files, rows, sealings, empty, Wanted(replace={BEGUN: secrets.token_bytes(KEY_BYTES)}))


def change(files: RootFile, rows: Rows, sealings: Sealings, before: Opened, wanted: Wanted) -> Opened:
    """The next epoch. The caller has the lock, and `before` is what `settle` has just told.

    Raises `KeystoreError`: nothing was changed, or, when the database or the disk do not answer, what became of it is
    told by the next `settle`.
    """
    root = secrets.token_bytes(KEY_BYTES)
    touched = {shard_of(*name) for name in (*wanted.delete, *wanted.replace)} | wanted.renew
    keys = tuple(secrets.token_bytes(KEY_BYTES) if n in touched else key for n, key in enumerate(before.keys))
    failure: KeystoreError | None = None
    try:
        _stage(files, sealings, root)
        rows.rewrite(_rewrite(AESGCM(root), before, keys, wanted, frozenset(touched)))
    except KeystoreError as error:
        failure = error
    try:
        after = settle(files, rows, sealings)
    except KeystoreError as unsettled:
        raise failure or unsettled from unsettled
    if after.epoch == before.epoch:
        raise failure or KeystoreError("The database did not keep what it committed.", hint="Look at its disk.")
    return after


def _stage(files: RootFile, sealings: Sealings, root: bytes) -> None:
    sealed = sealings.seal(root)
    try:
        files.stage(sealed)
    except KeystoreError:
        sealings.forget(sealed)
        raise


def _rewrite(root: AESGCM, before: Opened, keys: tuple[bytes, ...], wanted: Wanted, touched: frozenset[int]) -> Rewrite:
    old = {number: AESGCM(before.keys[number]) for number in touched}
    new = {number: AESGCM(keys[number]) for number in touched}

    def reseal(row: Row) -> bytes:
        name, shard = full_name(row.kind, row.id), shard_of(row.kind, row.id)
        return seal(new[shard], name, unseal(old[shard], name, row.sealed))

    return Rewrite(
        epoch=before.epoch,
        shards={number: seal(root, b"shard/%d" % number, key) for number, key in enumerate(keys)},
        touched=touched,
        delete=wanted.delete | wanted.drop,
        put={
            (kind, id_): seal(new[shard_of(kind, id_)], full_name(kind, id_), value)
            for (kind, id_), value in wanted.replace.items()
        },
        reseal=reseal,
    )


def settle(files: RootFile, rows: Rows, sealings: Sealings) -> Opened:
    """The caller has the directory's lock. Raises `KeystoreError`; then both roots are still there."""
    staged = files.staged()
    state = rows.state(durable=staged is not None)
    if len(state.shards) != SHARDS:
        raise KeystoreError("The keystore is not whole.", hint="Restore keys/ from its backup.")
    failure: KeystoreError | None = None
    if staged is not None:
        try:
            opened = _open_shards(sealings.unseal(staged), state)
        except KeystoreError as error:
            failure = error
        else:
            current = files.current()
            if current is not None:
                sealings.forget(current)
            files.promote()
            return opened
    current = files.current()
    if current is None:
        raise KeystoreError(
            f"{files.path} cannot be read: it is missing.", hint="Restore keys/ from its backup."
        ) from failure
    opened = _open_shards(sealings.unseal(current), state)
    if staged is not None:
        sealings.forget(staged)
        files.discard()
    return opened


def _open_shards(root: bytes, state: State) -> Opened:
    if len(root) != KEY_BYTES:
        raise KeystoreError("root.key is damaged.", hint="Restore keys/ from its backup.")
    cipher = AESGCM(root)
    keys = tuple(unseal(cipher, b"shard/%d" % number, state.shards[number]) for number in range(SHARDS))
    return Opened(state.epoch, keys)


def seal(cipher: AESGCM, name: bytes, value: bytes) -> bytes:
    """nonce (12) ‖ AES-256-GCM, with the row's name as AAD."""
    nonce = secrets.token_bytes(NONCE_BYTES)
    return nonce + cipher.encrypt(nonce, value, name)


def unseal(cipher: AESGCM, name: bytes, sealed: bytes) -> bytes:
    """Raises `KeystoreError`."""
    try:
        return cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], name)
    except (InvalidTag, ValueError) as error:
        raise KeystoreError("A key does not open under root.key.", hint=_HINT) from error
