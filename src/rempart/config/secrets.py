"""`read_secret`: a secret that the settings name by its file, which must be its owner's alone."""

from __future__ import annotations

from pathlib import Path

from rempart.errors import ConfigError, KeystoreError


def read_secret(path: Path, setting: str, bytes_max: int = -1) -> bytes:
    """The file's first `bytes_max` bytes, or all. Raises `KeystoreError` when others may read it, `ConfigError`."""
    try:
        if path.stat().st_mode & 0o077:
            raise KeystoreError(f"{path} can be read by others.", hint=f"Run: chmod go-rwx {path}")
        with path.open("rb") as file:
            return file.read(bytes_max)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.", hint=f"See {setting}.") from error
