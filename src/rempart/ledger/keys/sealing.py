"""`Sealings`: how the root of a keystore is kept in `root.key` (ADR 0003, "Keystore").

32 raw bytes are a root as it is (`file`); anything else is one line of JSON whose `kind` says what opens it:
`passphrase` here, `pkcs11` in `pkcs11_sealing`. Passphrases come from a file, a descriptor or a prompt, never from an
argument or the environment, which others can see.
"""

from __future__ import annotations

import os
import secrets
import stat
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from rempart import limits
from rempart.errors import KeystoreError

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
_SALT_BYTES: Final = 16
SCRYPT_N: Final = 1 << 17
SCRYPT_R: Final = 8
SCRYPT_P: Final = 1
_DAMAGED_HINT: Final = "Restore keys/ from its backup."


class Sealing(Protocol):
    """One way to keep a root. Each failure is a `KeystoreError`."""

    @property
    def kind(self) -> str:
        """As `root.key` names it."""
        ...

    def seal(self, root: bytes) -> bytes:
        """The bytes of `root.key`; what they need elsewhere (a key in a token) is durable when this returns."""
        ...

    def unseal(self, sealed: bytes) -> bytes:
        """The root, 32 bytes. Changes nothing."""
        ...

    def forget(self, sealed: bytes) -> None:
        """Destroy what these bytes need elsewhere, so that no copy of them opens any more; again is no error."""
        ...


class Sealings:
    """The ways that are known here: the first seals new roots, each opens those that name it."""

    def __init__(self, *known: Sealing) -> None:
        self.known = known

    def seal(self, root: bytes) -> bytes:
        return self.known[0].seal(root)

    def unseal(self, sealed: bytes) -> bytes:
        """Raises `KeystoreError`: damaged, of a kind that is not configured, or it does not open."""
        return self._of(sealed).unseal(sealed)

    def forget(self, sealed: bytes) -> None:
        """Damaged bytes need nothing elsewhere: what they needed was forgotten before they were overwritten."""
        if kind_of(sealed):
            self._of(sealed).forget(sealed)

    def _of(self, sealed: bytes) -> Sealing:
        kind = kind_of(sealed)
        if not kind:
            raise KeystoreError("root.key is damaged.", hint=_DAMAGED_HINT)
        for sealing in self.known:
            if sealing.kind == kind:
                return sealing
        raise KeystoreError(
            f"root.key is sealed by {kind}, which is not configured here.", hint=f"Configure {kind} to open it."
        )


class FileSealing:
    """The root as it is: only the file's modes protect it."""

    kind = "file"

    def seal(self, root: bytes) -> bytes:
        return root

    def unseal(self, sealed: bytes) -> bytes:
        return sealed

    def forget(self, sealed: bytes) -> None:
        """Nothing of it is elsewhere."""


class _Passphrase(msgspec.Struct, frozen=True, kw_only=True):
    """The line of JSON. Bytes are hex."""

    kind: str = "passphrase"
    kdf: str = "scrypt"
    n: int
    r: int
    p: int
    salt: str
    nonce: str
    sealed: str


class PassphraseSealing:
    """AES-256-GCM under scrypt (RFC 7914) of a passphrase; its parameters stand in the line and are authenticated."""

    kind = "passphrase"

    def __init__(self, passphrase: str, *, cost: int = SCRYPT_N) -> None:
        """`cost`: scrypt's N of new roots, a power of two; 2^17 with r = 8 takes 128 MiB."""
        if len(passphrase) < limits.passphrase_chars_min:
            raise KeystoreError(
                "The passphrase is too short.", hint=f"At least {limits.passphrase_chars_min} characters."
            )
        self._passphrase = unicodedata.normalize("NFC", passphrase).encode()
        self._cost = cost

    def seal(self, root: bytes) -> bytes:
        salt, nonce = secrets.token_bytes(_SALT_BYTES), secrets.token_bytes(NONCE_BYTES)
        line = _Passphrase(n=self._cost, r=SCRYPT_R, p=SCRYPT_P, salt=salt.hex(), nonce=nonce.hex(), sealed="")
        sealed = AESGCM(self._key(line)).encrypt(nonce, root, _bound(line))
        return msgspec.json.encode(msgspec.structs.replace(line, sealed=sealed.hex())) + b"\n"

    def unseal(self, sealed: bytes) -> bytes:
        try:
            line = msgspec.json.decode(sealed, type=_Passphrase)
            bounded = 1 < line.n <= limits.scrypt_cost_max and line.r == SCRYPT_R and line.p == SCRYPT_P
            if line.kdf != "scrypt" or not bounded:
                raise ValueError("its parameters are none of ours")
            key = self._key(line)
            return AESGCM(key).decrypt(bytes.fromhex(line.nonce), bytes.fromhex(line.sealed), _bound(line))
        except InvalidTag as error:
            raise KeystoreError(
                "root.key does not open under this passphrase.", hint="Give the passphrase it was sealed with."
            ) from error
        except (msgspec.MsgspecError, ValueError) as error:
            raise KeystoreError(f"root.key is damaged: {error}.", hint=_DAMAGED_HINT) from error

    def forget(self, sealed: bytes) -> None:
        """Nothing of it is elsewhere."""

    def _key(self, line: _Passphrase) -> bytes:
        return Scrypt(bytes.fromhex(line.salt), KEY_BYTES, line.n, line.r, line.p).derive(self._passphrase)


def passphrase_from_file(path: Path) -> str:
    """Its first line; the file must be its owner's alone. Raises `KeystoreError`."""
    try:
        with path.open("rb") as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                raise KeystoreError(f"{path} can be read by others.", hint=f"Run: chmod go-rwx {path}")
            return _line(file.read(limits.passphrase_bytes_max + 1))
    except OSError as error:
        raise KeystoreError(f"{path} cannot be read: {error.strerror}.", hint="Check the path.") from error


def passphrase_from_descriptor(descriptor: int) -> str:
    """Its first line; it is read to its end and closed. Raises `KeystoreError`."""
    try:
        with os.fdopen(descriptor, "rb") as file:
            return _line(file.read(limits.passphrase_bytes_max + 1))
    except OSError as error:
        raise KeystoreError(
            f"Descriptor {descriptor} cannot be read: {error.strerror}.", hint="Open it for the command, as in 3<FILE."
        ) from error


def passphrase_from_prompt(ask: Callable[[str], str], *, new: bool = False) -> str:
    """`ask` shows a prompt and reads without echo; a new passphrase is asked for twice. Raises `KeystoreError`."""
    given = ask("Passphrase of the keystore: ")
    if new and ask("Once more: ") != given:
        raise KeystoreError("The two passphrases are not the same.", hint="Try again.")
    return given


def kind_of(sealed: bytes) -> str:
    """What sealed a root; empty when the bytes are damaged."""
    if len(sealed) == KEY_BYTES:
        return FileSealing.kind
    try:
        line: Any = msgspec.json.decode(sealed)
    except msgspec.DecodeError:
        return ""
    kind = line.get("kind") if isinstance(line, dict) else None
    return kind if isinstance(kind, str) else ""


def _bound(line: _Passphrase) -> bytes:
    """What the tag covers beside the root: all of the line but nonce and ciphertext."""
    return f"rempart/v1/root {line.kdf} {line.n} {line.r} {line.p} {line.salt}".encode()


def _line(read: bytes) -> str:
    first = read.split(b"\n")[0].removesuffix(b"\r")
    if len(first) > limits.passphrase_bytes_max:
        raise KeystoreError("The passphrase is too long.", hint=f"At most {limits.passphrase_bytes_max} bytes.")
    try:
        return first.decode()
    except UnicodeDecodeError as error:
        raise KeystoreError("The passphrase is no UTF-8.", hint="Write it again as UTF-8.") from error
