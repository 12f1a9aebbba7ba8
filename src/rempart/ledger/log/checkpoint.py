"""`Checkpoint`: the signed head of a log (pure).

Sources: C2SP tlog-checkpoint and signed-note. A note is a text, a blank line and signature lines
`— <name> base64(key id ‖ signature)`; the key id is SHA-256(name ‖ 0x0A ‖ type ‖ public key)[:4].
"""

from __future__ import annotations

import base64
import binascii
import re
from hashlib import sha256
from typing import Final

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from rempart.errors import LedgerCorrupt
from rempart.ledger.log.merkle import HASH_BYTES

_ED25519: Final = b"\x01"
_SIGNATURES_MAX: Final = 64
_NAME = re.compile(r"[^\s+\u0000-\u001f\u007f]{1,255}")
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")


class Checkpoint(msgspec.Struct, frozen=True):
    """Origin, number of leaves, and the 32 bytes of the root."""

    origin: str
    size: int
    root: bytes

    def text(self) -> bytes:
        """The text that is signed: ends in a line feed."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n".encode()


class Signer:
    """An Ed25519 key and the name it signs under."""

    def __init__(self, name: str, seed: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.verifier = Verifier(name, self._key.public_key().public_bytes_raw())

    def sign(self, checkpoint: Checkpoint) -> bytes:
        """The signed note."""
        text = checkpoint.text()
        signature = base64.b64encode(self.verifier.key_id + self._key.sign(text)).decode()
        return text + f"\n— {self.verifier.name} {signature}\n".encode()


class Verifier:
    """The public half."""

    def __init__(self, name: str, public_key: bytes) -> None:
        check_name(name)
        self.name = name
        self._public = public_key
        self._key = Ed25519PublicKey.from_public_bytes(public_key)
        self.key_id = sha256(name.encode() + b"\n" + _ED25519 + public_key).digest()[:4]

    @property
    def vkey(self) -> str:
        """`name+hex(key id)+base64(type ‖ public key)`."""
        return f"{self.name}+{self.key_id.hex()}+{base64.b64encode(_ED25519 + self._public).decode()}"

    @classmethod
    def from_vkey(cls, vkey: str) -> Verifier:
        """Raises `LedgerCorrupt` when the text is no Ed25519 verifier key."""
        name, _, rest = vkey.strip().partition("+")
        key_id, _, encoded = rest.partition("+")
        try:
            key = base64.b64decode(encoded, validate=True)
            if key[:1] != _ED25519:
                raise ValueError("type")
            found = cls(name, key[1:])
        except (ValueError, binascii.Error) as error:
            raise LedgerCorrupt(
                "That is no Ed25519 verifier key.", hint="Use what 'rempart ledger key' prints."
            ) from error
        if found.key_id.hex() != key_id:
            raise LedgerCorrupt("The verifier key is damaged: its key id does not fit.", hint="Copy it again, whole.")
        return found

    def open(self, note: bytes) -> Checkpoint:
        """The checkpoint in a note. Raises `LedgerCorrupt` unless this key signed it."""
        text, checkpoint = parse_note(note)
        for name, signature in _signatures(note[len(text) + 1 :]):
            if name == self.name and signature[:4] == self.key_id:
                try:
                    self._key.verify(signature[4:], text)
                except InvalidSignature as error:
                    raise LedgerCorrupt("The checkpoint's signature is not valid.") from error
                return checkpoint
        raise LedgerCorrupt(f"The checkpoint is not signed by {self.name}.")


def check_name(name: str) -> None:
    """Raises `ValueError` when a log may not be called so."""
    if not _NAME.fullmatch(name):
        raise ValueError("an origin has 1 to 255 characters, no spaces and no plus sign")


def parse_note(note: bytes) -> tuple[bytes, Checkpoint]:
    """The signed text and what it says; the signatures are not looked at. Raises `LedgerCorrupt`."""
    end = note.rfind(b"\n\n")
    if end < 0:
        raise LedgerCorrupt("The checkpoint is no signed note.")
    text = note[: end + 1]
    try:
        lines = text.decode().split("\n")
        root = base64.b64decode(lines[2], validate=True)
    except (UnicodeDecodeError, IndexError, binascii.Error, ValueError) as error:
        raise LedgerCorrupt("The checkpoint cannot be read.") from error
    if not lines[0] or not _SIZE.fullmatch(lines[1]) or len(root) != HASH_BYTES:
        raise LedgerCorrupt("The checkpoint cannot be read.")
    return text, Checkpoint(lines[0], int(lines[1]), root)


def _signatures(lines: bytes) -> list[tuple[str, bytes]]:
    found: list[tuple[str, bytes]] = []
    try:
        for line in lines.decode().splitlines()[:_SIGNATURES_MAX]:
            dash, name, signature = line.split(" ")
            if dash != "—":
                raise ValueError("a signature line begins with an em dash")
            found.append((name, base64.b64decode(signature, validate=True)))
    except ValueError as error:
        raise LedgerCorrupt("A signature line of the checkpoint cannot be read.") from error
    return found
