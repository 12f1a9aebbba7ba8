"""`require`: what stands in a data directory. It is looked at and never made."""

from __future__ import annotations

from pathlib import Path

from rempart.config.settings import Keys
from rempart.errors import KeystoreError, NoInstallation, UsageError
from rempart.ledger.keys.configured import open_keystore
from rempart.ledger.keys.keystore import Keystore

_LEDGER = ("ledger", "log.vkey")
_KEYS = ("keys", "root.key")


def require(data: Path) -> None:
    """Raises `NoInstallation` when `rempart up` never ran on that directory."""
    if not exists(data):
        raise NoInstallation(
            f"There is no installation in {data}.",
            hint="Give the directory of one with --data; 'rempart up' makes a new one.",
        )


def exists(data: Path) -> bool:
    """Whether there is a ledger, or the keys of one."""
    return _is_there(data.joinpath(*_LEDGER)) or _is_there(data.joinpath(*_KEYS))


def require_ledger(data: Path) -> None:
    """Raises `NoInstallation` when there is no ledger."""
    require(data)
    if not _is_there(data.joinpath(*_LEDGER)):
        raise NoInstallation(
            f"There is no ledger in {data}, only keys.", hint="Restore ledger/ from its copy, or give --data."
        )


def keys_of(data: Path, keys: Keys | None = None) -> Keystore:
    """The keystore of an installation. Raises `KeystoreError` when it is missing, and makes none."""
    require_keys(data)
    return open_keystore(data, keys)


def has_keys(data: Path) -> bool:
    """Whether it is more than a copy of the ledger."""
    return _is_there(data.joinpath(*_KEYS))


def require_keys(data: Path) -> None:
    """Raises `KeystoreError` when they are missing."""
    if not has_keys(data):
        raise KeystoreError("This directory has no keys (keys/ is missing).", hint="Restore keys/ from its backup.")


def _is_there(path: Path) -> bool:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise UsageError(
            f"{path} cannot be looked at: {error.strerror}.", hint="Run rempart as the owner of the data directory."
        ) from error
    return True
