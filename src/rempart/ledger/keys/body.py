"""`seal` and `unseal`: encrypted bodies and pieces, and the commitment to them (pure; randomness is an argument).

Keys: HKDF-SHA256 (RFC 5869) with the exchange's id as salt, record key ‖ bucket key ‖ subject keys as input, and a
label as info. Bodies: nonce (12) ‖ AES-256-GCM(key, nonce, salt (32) ‖ content, AAD = exchange id ‖ label).
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from hashlib import sha256
from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from rempart.errors import LedgerCorrupt

REQUEST: Final = b"rempart/v1/request"
RESPONSE: Final = b"rempart/v1/response"
PIECES: Final = b"rempart/v1/pieces"

NONCE_BYTES: Final = 12
SALT_BYTES: Final = 32
TAG_BYTES: Final = 16


def label(type: str) -> bytes:
    """Of the body of an entry of that type."""
    return f"rempart/v1/{type}".encode()


class Sealed(msgspec.Struct, frozen=True):
    """An encrypted body, and what its entry says of it (in hex)."""

    body: bytes
    digest: str
    """SHA-256 of the encrypted body."""
    commitment: str
    """HMAC-SHA256 of the content under the salt inside."""


def extract(exchange: bytes, record_key: bytes, bucket_key: bytes, subject_keys: Sequence[bytes]) -> bytes:
    """HKDF-Extract; `exchange` is the id's 16 bytes, `subject_keys` are in order of their pseudonyms."""
    return hmac.digest(exchange, b"".join((record_key, bucket_key, *subject_keys)), "sha256")


def expand(pseudorandom_key: bytes, label: bytes) -> bytes:
    """HKDF-Expand to 32 bytes."""
    return hmac.digest(pseudorandom_key, label + b"\x01", "sha256")


def seal(key: bytes, exchange: bytes, label: bytes, content: bytes, random: bytes) -> Sealed:
    """`random`: 44 fresh random bytes, nonce and salt."""
    nonce, salt = random[:NONCE_BYTES], random[NONCE_BYTES:]
    body = nonce + AESGCM(key).encrypt(nonce, salt + content, exchange + label)
    return Sealed(body, sha256(body).hexdigest(), hmac.digest(salt, content, "sha256").hex())


class Revealed(msgspec.Struct, frozen=True):
    """A content, and the salt under which its entry commits to it."""

    salt: bytes
    content: bytes


def unseal(key: bytes, exchange: bytes, label: bytes, body: bytes, commitment: str) -> Revealed:
    """Raises `LedgerCorrupt` when it is not what was sealed."""
    try:
        plain = AESGCM(key).decrypt(body[:NONCE_BYTES], body[NONCE_BYTES:], exchange + label)
    except (InvalidTag, ValueError) as error:
        raise LedgerCorrupt("A body does not open under its key.") from error
    salt, content = plain[:SALT_BYTES], plain[SALT_BYTES:]
    if not hmac.compare_digest(hmac.digest(salt, content, "sha256").hex().encode(), commitment.encode()):
        raise LedgerCorrupt("A body is not the one that its entry commits to.")
    return Revealed(salt, content)


class PieceCipher:
    """Pieces of one exchange; the nonce is the piece's sequence number, never used twice under this key."""

    __slots__ = ("_cipher", "_exchange")

    def __init__(self, key: bytes, exchange: bytes) -> None:
        self._cipher = AESGCM(key)
        self._exchange = exchange

    def seal(self, sequence: int, piece: bytes) -> bytes:
        return self._cipher.encrypt(sequence.to_bytes(NONCE_BYTES, "big"), piece, self._exchange)

    def unseal(self, sequence: int, sealed: bytes) -> bytes:
        """Raises `LedgerCorrupt`."""
        try:
            return self._cipher.decrypt(sequence.to_bytes(NONCE_BYTES, "big"), sealed, self._exchange)
        except InvalidTag as error:
            raise LedgerCorrupt("A piece of a stream does not open under its key.") from error
