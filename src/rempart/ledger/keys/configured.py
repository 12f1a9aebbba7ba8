"""`open_keystore`: the keystore of a data directory, with the rows and the seals that `[keys]` says."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import msgspec

from rempart.config.settings import Keys
from rempart.ledger.keys.keystore import Keystore
from rempart.ledger.keys.pkcs11_sealing import Pkcs11Sealing
from rempart.ledger.keys.postgres_rows import PostgresRows
from rempart.ledger.keys.rows import Rows
from rempart.ledger.keys.sealing import FileSealing, PassphraseSealing, Sealing, Sealings, passphrase_from_file


def open_keystore(data: Path, keys: Keys | None = None, *, owner: bool = False) -> Keystore:
    """The keystore, made at first; `keys` says how it is kept. `owner`: the caller owns the data directory, and has the
    rows alone (ADR 0006). Raises `KeystoreError`, `MissingDependency`."""
    directory = data / "keys"
    rows, sealings = adapters(keys or Keys(), owner=owner)
    if (directory / "root.key").exists():
        return Keystore.open(directory, rows, sealings)
    return Keystore.create(directory, rows, sealings)


def adapters(keys: Keys, *, owner: bool = False) -> tuple[Rows | None, Sealings]:
    """Rows are None where they are in the keystore's own directory. Raises `KeystoreError`."""
    sealings = sealings_of(keys)
    return (PostgresRows(keys.database, owner=owner) if keys.database else None), sealings


def encode_keys(keys: Keys) -> str:
    """For a process of our own: paths and names, no secret."""
    return msgspec.json.encode(keys, enc_hook=str).decode()


def decode_keys(text: str) -> Keys:
    """What `encode_keys` gave."""
    return msgspec.json.decode(text, type=Keys, dec_hook=lambda kind, value: kind(value))


def sealings_of(keys: Keys) -> Sealings:
    """The one that is asked for seals; a root that is sealed in another way which is configured opens as well.

    Raises `KeystoreError` when a passphrase cannot be read.
    """
    known: list[Sealing] = [FileSealing()]
    if keys.passphrase_file is not None:
        known.append(PassphraseSealing(passphrase_from_file(keys.passphrase_file)))
    if keys.pkcs11_library is not None and keys.pkcs11_pin_file is not None:
        pin = partial(passphrase_from_file, keys.pkcs11_pin_file)
        known.append(Pkcs11Sealing(keys.pkcs11_library, keys.pkcs11_token, pin))
    return Sealings(*sorted(known, key=lambda one: one.kind != keys.sealing))
