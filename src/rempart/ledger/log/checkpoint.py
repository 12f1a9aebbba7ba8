"""`Checkpoint`: the signed head of a log, and the note that carries it (pure).

Sources: C2SP tlog-checkpoint and signed-note. A note is a text, a blank line and signature lines
`— <name> base64(key id ‖ signature)`; the key id is SHA-256(name ‖ 0x0A ‖ type ‖ public key)[:4].

A log's note begins with `Signer.sign`. Whoever signs it too (a witness, the log under a new key or under ML-DSA-44)
makes a line of its own, by `Signer.line` or `cosignature.Cosigner.cosign`, which `with_signatures` adds.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from hashlib import sha256
from typing import Final, Protocol

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from rempart import limits
from rempart.errors import LedgerCorrupt
from rempart.ledger.log.merkle import EMPTY_ROOT, HASH_BYTES

_ED25519: Final = 0x01
_KEY_ID_BYTES: Final = 4
_NAME = re.compile(r"[^\s+\u0000-\u001f\u007f]{1,255}")
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")
_SIGNATURE = re.compile(r"— ([^\s+]+) ([A-Za-z0-9+/=]+)")
_CONTROL = re.compile(rb"[\x00-\x09\x0b-\x1f]")


class Checkpoint(msgspec.Struct, frozen=True):
    """Origin, number of leaves, and the 32 bytes of the root."""

    origin: str
    size: int
    root: bytes

    def text(self) -> bytes:
        """The text that is signed: ends in a line feed."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n".encode()


class Signature(msgspec.Struct, frozen=True):
    """One signature of a note: the key's name, the 4 bytes of its id, and what the key's type says of the rest."""

    name: str
    key_id: bytes
    value: bytes

    def line(self) -> bytes:
        """As it stands in a note: ends in a line feed."""
        return f"— {self.name} {base64.b64encode(self.key_id + self.value).decode()}\n".encode()


class Note(msgspec.Struct, frozen=True):
    """A text and those who signed it; nothing is verified yet."""

    text: bytes
    signatures: tuple[Signature, ...]

    def encode(self) -> bytes:
        """The bytes that `read_note` reads."""
        return b"".join([self.text, b"\n", *(signature.line() for signature in self.signatures)])


class NoteKey(Protocol):
    """A public key for notes: `Verifier`, or `cosignature.CosignatureVerifier`; name and id tell its own lines."""

    name: str
    key_id: bytes

    def verify(self, text: bytes, value: bytes) -> int:
        """When it was signed, in seconds since 1970; 0 when the signature does not say. Raises `LedgerCorrupt`."""


class Signer:
    """An Ed25519 key and the name it signs under."""

    def __init__(self, name: str, seed: bytes, beside: Signer | None = None) -> None:
        """`beside`: the key that the log is changing to, which signs as well."""
        self.seed = seed
        """The private key, 32 bytes."""
        self.beside = beside
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.verifier = Verifier(name, self._key.public_key().public_bytes_raw())

    def sign(self, checkpoint: Checkpoint) -> bytes:
        """The signed note."""
        text = checkpoint.text()
        beside = b"" if self.beside is None else self.beside.line(text)
        return text + b"\n" + self.line(text) + beside

    def line(self, text: bytes) -> bytes:
        """The signature line alone."""
        return Signature(self.verifier.name, self.verifier.key_id, self._key.sign(text)).line()


class Verifier:
    """The public half."""

    def __init__(self, name: str, public_key: bytes) -> None:
        check_name(name)
        self.name = name
        self.public_key = public_key
        self._key = Ed25519PublicKey.from_public_bytes(public_key)
        self.key_id = key_id(name, _ED25519, public_key)

    @property
    def vkey(self) -> str:
        """`name+hex(key id)+base64(type ‖ public key)`."""
        return encode_vkey(self.name, _ED25519, self.public_key)

    @classmethod
    def from_vkey(cls, vkey: str) -> Verifier:
        """Raises `LedgerCorrupt` when the text is no Ed25519 verifier key."""
        name, kind, public_key = decode_vkey(vkey)
        try:
            if kind != _ED25519:
                raise ValueError("type")
            return cls(name, public_key)
        except ValueError as error:
            raise LedgerCorrupt(
                "That is no Ed25519 verifier key.", hint="Use what 'rempart ledger key' prints."
            ) from error

    def verify(self, text: bytes, value: bytes) -> int:
        """0: such a signature bears no time. Raises `LedgerCorrupt` when it is not this key's over `text`."""
        try:
            self._key.verify(value, text)
        except InvalidSignature as error:
            raise LedgerCorrupt(f"The checkpoint's signature by {self.name} is not valid.") from error
        return 0

    def open(self, note: bytes) -> Checkpoint:
        """The checkpoint in a note. Raises `LedgerCorrupt` unless this key signed it."""
        read = read_note(note)
        if not signed_by(self, read):
            raise LedgerCorrupt(f"The checkpoint is not signed by {self.name}.")
        return read_text(read.text)


def check_name(name: str) -> None:
    """Raises `ValueError` when a log may not be called so."""
    if not _NAME.fullmatch(name):
        raise ValueError("an origin has 1 to 255 characters, no spaces and no plus sign")


def key_id(name: str, kind: int, public_key: bytes) -> bytes:
    """4 bytes; `kind` is the byte that signed-note assigns to the type of signature."""
    return sha256(name.encode() + b"\n" + bytes([kind]) + public_key).digest()[:_KEY_ID_BYTES]


def encode_vkey(name: str, kind: int, public_key: bytes) -> str:
    """`name+hex(key id)+base64(type ‖ public key)` (signed-note, "Verifier keys")."""
    encoded = base64.b64encode(bytes([kind]) + public_key).decode()
    return f"{name}+{key_id(name, kind, public_key).hex()}+{encoded}"


def decode_vkey(vkey: str) -> tuple[str, int, bytes]:
    """Name, type and public key of any type. Raises `LedgerCorrupt`, also when the key id does not fit."""
    name, _, rest = vkey.strip().partition("+")
    hex_id, _, encoded = rest.partition("+")
    try:
        check_name(name)
        key = decode_base64(encoded.encode())
        if len(key) < 2:
            raise ValueError("no key")
        found = key_id(name, key[0], key[1:])
    except ValueError as error:
        raise LedgerCorrupt("That is no verifier key.", hint="Copy it again, whole.") from error
    if found.hex() != hex_id:
        raise LedgerCorrupt("The verifier key is damaged: its key id does not fit.", hint="Copy it again, whole.")
    return name, key[0], key[1:]


def decode_base64(encoded: bytes) -> bytes:
    """RFC 4648 section 4, and only the encoding that section 3.5 calls canonical. Raises `ValueError`."""
    try:
        found = base64.b64decode(encoded, validate=True)
    except binascii.Error as error:
        raise ValueError("not base64") from error
    if base64.b64encode(found) != encoded:
        raise ValueError("base64 that is not canonical")
    return found


def read_note(note: bytes) -> Note:
    """Any signed note, also one that holds no checkpoint. Raises `LedgerCorrupt`."""
    if len(note) > limits.note_bytes_max:
        raise LedgerCorrupt(f"The note has more than {limits.note_bytes_max} bytes.")
    text, blank, lines = note.rpartition(b"\n\n")
    if not blank or _CONTROL.search(note):
        raise LedgerCorrupt("The checkpoint is no signed note.")
    try:
        text.decode()
    except UnicodeDecodeError as error:
        raise LedgerCorrupt("The checkpoint is not UTF-8.") from error
    return Note(text + b"\n", read_signatures(lines))


def read_signatures(lines: bytes) -> tuple[Signature, ...]:
    """One or more signature lines, as a note ends in them and as a witness answers. Raises `LedgerCorrupt`."""
    split = lines.split(b"\n")
    if len(split) < 2 or split.pop():
        raise LedgerCorrupt("The checkpoint has no signature, or its last line is cut.")
    if len(split) > limits.note_signatures_max:
        raise LedgerCorrupt(f"The checkpoint has more than {limits.note_signatures_max} signatures.")
    try:
        return tuple(_signature(line.decode()) for line in split)
    except ValueError as error:
        raise LedgerCorrupt("A signature line of the checkpoint cannot be read.") from error


def _signature(line: str) -> Signature:
    match = _SIGNATURE.fullmatch(line)
    if not match:
        raise ValueError("a signature line is an em dash, a name and base64")
    value = decode_base64(match[2].encode())
    if len(value) <= _KEY_ID_BYTES:
        raise ValueError("a signature has more bytes than the key's id")
    return Signature(match[1], value[:_KEY_ID_BYTES], value[_KEY_ID_BYTES:])


def read_text(text: bytes) -> Checkpoint:
    """What a note's text says; its extension lines stay in the text alone. Raises `LedgerCorrupt`."""
    try:
        origin, size, root, *extensions, end = text.decode().split("\n")
        hash_ = decode_base64(root.encode())
    except ValueError as error:
        raise LedgerCorrupt("The checkpoint cannot be read.") from error
    if not origin or not _SIZE.fullmatch(size) or len(hash_) != HASH_BYTES or end or not all(extensions):
        raise LedgerCorrupt("The checkpoint cannot be read.")
    if size == "0" and hash_ != EMPTY_ROOT:
        raise LedgerCorrupt("The checkpoint is of an empty tree, but its root is not that of one.")
    return Checkpoint(origin, int(size), hash_)


def parse_note(note: bytes) -> tuple[bytes, Checkpoint]:
    """The signed text and what it says; no signature is verified. Raises `LedgerCorrupt`."""
    text = read_note(note).text
    return text, read_text(text)


def signed_by(key: NoteKey, note: Note) -> list[int]:
    """When `key` signed the note, in seconds since 1970 (0: not said); empty when it did not.

    signed-note: lines of other keys are ignored, and one line of a known key that is not valid spoils the note.
    Raises `LedgerCorrupt`.
    """
    return [
        key.verify(note.text, signature.value)
        for signature in note.signatures
        if signature.name == key.name and signature.key_id == key.key_id
    ]


def with_signatures(note: bytes, lines: Sequence[bytes]) -> bytes:
    """The note with these signature lines at its end. What stands there is kept, unless the same key signs anew.

    Nothing is verified. Raises `LedgerCorrupt` when the note or a line cannot be read, or when they become too many.
    """
    read = read_note(note)
    added = {(new.name, new.key_id): new for line in lines for new in read_signatures(line)}
    kept = (old for old in read.signatures if (old.name, old.key_id) not in added)
    whole = Note(read.text, (*kept, *added.values())).encode()
    read_note(whole)
    return whole
