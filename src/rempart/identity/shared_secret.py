"""`SharedSecret`: what gateways that share API keys have in common, and what is derived of it (pure).

32 random bytes, in a file of each gateway and never in the database. HMAC-SHA256 of it under a label each gives the
pepper of the keys' MACs, the key that seals their rows, and the proof by which a gateway with another one is refused.
A row is nonce (12) ‖ AES-256-GCM(key, nonce, content, AAD = id ‖ version ‖ MAC): who writes to the database alone
makes no key, and changes no role and no limit.
"""

from __future__ import annotations

import hmac
import re
from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from rempart.errors import ConfigError, KeystoreError

SECRET_BYTES: Final = 32
NONCE_BYTES: Final = 12
_HEX: Final = re.compile(rb"[0-9a-f]{64}")
_MAKE: Final = "Make it once with 'openssl rand -hex 32', and give every gateway the same."


class SharedSecret(msgspec.Struct, frozen=True):
    """Derived from the secret of the file; 32 bytes each."""

    pepper: bytes
    rows: bytes
    """Seals rows of API keys."""
    proof: bytes
    """Stands in the database in clear; says nothing of the secret."""

    def __repr__(self) -> str:
        return "SharedSecret(…)"

    def seal(self, name: bytes, content: bytes, random: bytes) -> bytes:
        """`random`: 12 fresh random bytes. `name`: what the row is sealed for."""
        return random + AESGCM(self.rows).encrypt(random, content, name)

    def unseal(self, name: bytes, sealed: bytes) -> bytes:
        """Raises `KeystoreError`."""
        try:
            return AESGCM(self.rows).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], name)
        except (InvalidTag, ValueError) as error:
            raise KeystoreError(
                "A shared API key does not open: somebody else changed its row in the database.",
                hint="Restore rempart_shared from its backup; find out who may write there.",
            ) from error


def derive(text: bytes) -> SharedSecret:
    """`text`: what stands in the file, 64 hex digits. Raises `ConfigError`: a word that can be guessed is no secret."""
    line = text.strip()
    if not _HEX.fullmatch(line):
        raise ConfigError("shared.secret_file does not hold 64 hex digits.", hint=_MAKE)
    secret = bytes.fromhex(line.decode())
    return SharedSecret(*(hmac.digest(secret, b"rempart/v1/shared/" + one, "sha256") for one in _LABELS))


_LABELS: Final = (b"pepper", b"rows", b"proof")
