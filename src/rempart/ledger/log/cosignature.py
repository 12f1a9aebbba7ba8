"""`Cosigner.cosign`: a signature line that says when its signer saw a checkpoint (pure).

Source: C2SP tlog-cosignature. A signature is a time (u64, big-endian, seconds since 1970) and 64 bytes of Ed25519
(type 04) or 2,420 bytes of ML-DSA-44 (type 06, FIPS 204). The Ed25519 message is the note's text under a header of two
lines; the ML-DSA-44 message is a structure that names the cosigner, the origin, the size and the root.

That structure leaves out extension lines. A text that has any is therefore refused, for signing and for verifying:
whoever trusts an ML-DSA-44 signature may trust all he reads.

A log may sign with ML-DSA-44 beside Ed25519: `with_signatures(signer.sign(head), [cosigner.cosign(head.text(), 0)])`,
where the cosigner bears the log's origin; the time 0 says no more than that the log is consistent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from rempart.errors import LedgerCorrupt, MissingDependency
from rempart.ledger.log.checkpoint import Signature, check_name, decode_vkey, encode_vkey, key_id, read_text

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey, MLDSA44PublicKey

ED25519: Final = 0x04
ML_DSA_44: Final = 0x06
_PUBLIC_KEY_BYTES: Final = {ED25519: 32, ML_DSA_44: 1312}
_SIGNATURE_BYTES: Final = {ED25519: 64, ML_DSA_44: 2420}
_SEED_BYTES: Final = 32
_TIME_BYTES: Final = 8
_TIME_MAX: Final = 2**63 - 1
_LABEL: Final = b"subtree/v1\n\0"
_OPAQUE_BYTES_MAX: Final = 255


class Cosigner:
    """A private key, given by its seed of 32 bytes, and the name it signs under.

    One Ed25519 key may bear one name only: its message does not say who signs.
    """

    def __init__(self, name: str, seed: bytes, kind: int = ED25519) -> None:
        """Raises `MissingDependency` when the library has no ML-DSA-44, `ValueError` for a bad name, seed or kind."""
        if len(seed) != _SEED_BYTES:
            raise ValueError(f"a seed has {_SEED_BYTES} bytes, not {len(seed)}")
        self._key = _ml_dsa_private(seed) if kind == ML_DSA_44 else Ed25519PrivateKey.from_private_bytes(seed)
        self.verifier = CosignatureVerifier(name, kind, self._key.public_key().public_bytes_raw())

    def cosign(self, text: bytes, time: int) -> bytes:
        """The signature line over a note's text; `time` in whole seconds since 1970.

        0 stands for no statement of time, which Ed25519 cannot make. Raises `LedgerCorrupt` when the text is no
        checkpoint, or one that this type of signature does not cover.
        """
        first = 1 if self.verifier.kind == ED25519 else 0
        if not first <= time <= _TIME_MAX:
            raise ValueError(f"{time} is no time of such a cosignature")
        signature = self._key.sign(self.verifier.message(text, time))
        return Signature(self.verifier.name, self.verifier.key_id, time.to_bytes(_TIME_BYTES, "big") + signature).line()


class CosignatureVerifier:
    """The public half: a `checkpoint.NoteKey`."""

    def __init__(self, name: str, kind: int, public_key: bytes) -> None:
        """Raises `ValueError` for what is no such key, `MissingDependency` when the library has no ML-DSA-44."""
        check_name(name)
        if kind not in _PUBLIC_KEY_BYTES:
            raise ValueError(f"{kind} is no type of cosignature")
        if len(public_key) != _PUBLIC_KEY_BYTES[kind]:
            raise ValueError(f"a public key of this type has {_PUBLIC_KEY_BYTES[kind]} bytes, not {len(public_key)}")
        self.name = name
        self.kind = kind
        self.public_key = public_key
        self.key_id = key_id(name, kind, public_key)
        self._key = _ml_dsa_public(public_key) if kind == ML_DSA_44 else Ed25519PublicKey.from_public_bytes(public_key)

    @property
    def vkey(self) -> str:
        """`name+hex(key id)+base64(type ‖ public key)`."""
        return encode_vkey(self.name, self.kind, self.public_key)

    @classmethod
    def from_vkey(cls, vkey: str) -> CosignatureVerifier:
        """Raises `LedgerCorrupt` when the text is no cosigner's verifier key."""
        name, kind, public_key = decode_vkey(vkey)
        try:
            return cls(name, kind, public_key)
        except ValueError as error:
            raise LedgerCorrupt(
                f"The verifier key of {name} is of no type that cosigns.",
                hint="A witness has a key of type 04 (Ed25519) or 06 (ML-DSA-44); ask its operator.",
            ) from error

    def message(self, text: bytes, time: int) -> bytes:
        """What is signed. Raises `LedgerCorrupt` when the text is no checkpoint, or one that cannot be covered."""
        checkpoint = read_text(text)
        if self.kind == ED25519:
            return b"cosignature/v1\ntime %d\n" % time + text
        if text != checkpoint.text():
            raise LedgerCorrupt("The checkpoint has extension lines, which an ML-DSA-44 signature does not cover.")
        return b"".join(
            [
                _LABEL,
                _opaque(self.name),
                time.to_bytes(8, "big"),
                _opaque(checkpoint.origin),
                bytes(8),
                checkpoint.size.to_bytes(8, "big"),
                checkpoint.root,
            ]
        )

    def verify(self, text: bytes, value: bytes) -> int:
        """The time of the cosignature, in seconds since 1970. Raises `LedgerCorrupt` unless it is this key's."""
        time = int.from_bytes(value[:_TIME_BYTES], "big")
        if len(value) != _TIME_BYTES + _SIGNATURE_BYTES[self.kind] or time > _TIME_MAX:
            raise LedgerCorrupt(f"The cosignature of {self.name} cannot be read.")
        try:
            self._key.verify(value[_TIME_BYTES:], self.message(text, time))
        except InvalidSignature as error:
            raise LedgerCorrupt(f"The cosignature of {self.name} is not valid.") from error
        return time


def _opaque(text: str) -> bytes:
    """`opaque<1..2^8-1>` of RFC 8446 section 3.4."""
    data = text.encode()
    if not 1 <= len(data) <= _OPAQUE_BYTES_MAX:
        raise LedgerCorrupt(f"A name or an origin of {len(data)} bytes cannot stand under an ML-DSA-44 signature.")
    return bytes([len(data)]) + data


def _ml_dsa_private(seed: bytes) -> MLDSA44PrivateKey:
    try:
        from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

        return MLDSA44PrivateKey.from_seed_bytes(seed)
    except (ImportError, UnsupportedAlgorithm) as error:
        raise _missing() from error


def _ml_dsa_public(public_key: bytes) -> MLDSA44PublicKey:
    try:
        from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PublicKey

        return MLDSA44PublicKey.from_public_bytes(public_key)
    except (ImportError, UnsupportedAlgorithm) as error:
        raise _missing() from error


def _missing() -> MissingDependency:
    return MissingDependency(
        "The installed 'cryptography' has no ML-DSA-44.",
        hint="Install the version that Rempart's lock names, or use Ed25519 keys (type 04).",
    )
