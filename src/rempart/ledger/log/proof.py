"""`check`: shows from one file that an entry stands in a log (pure).

Source: C2SP tlog-proof. A proof is the entry's index, the hashes from the leaf's sibling up to the root's child, the
checkpoint, and extra bytes that nothing signs: `rempart` puts the entry itself there.

1. The checkpoint is opened by the policy: one of its logs signed it, and its quorum of witnesses cosigned it.
2. The hash of the entry leads, by the index and the hashes, to the root that the checkpoint signs.
"""

from __future__ import annotations

import base64
import re
from typing import Final

import msgspec

from rempart import limits
from rempart.errors import LedgerCorrupt
from rempart.ledger.log.checkpoint import decode_base64, parse_note
from rempart.ledger.log.merkle import HASH_BYTES, leaf_hash, verify_inclusion
from rempart.ledger.log.policy import Opened, Policy

_HEADER: Final = b"c2sp.org/tlog-proof@v1"
_INDEX = re.compile(rb"index (0|[1-9][0-9]{0,18})")
_EXTRA: Final = b"extra "


class TlogProof(msgspec.Struct, frozen=True):
    """Index of the leaf, hashes of 32 bytes each, the signed note, and extra bytes that are not authenticated."""

    index: int
    hashes: tuple[bytes, ...]
    checkpoint: bytes
    extra: bytes = b""


def encode(proof: TlogProof) -> bytes:
    """The contents of a `.tlog-proof` file."""
    extra = [_EXTRA + base64.b64encode(proof.extra)] if proof.extra else []
    hashes = [base64.b64encode(hash_) for hash_ in proof.hashes]
    return b"\n".join([_HEADER, *extra, b"index %d" % proof.index, *hashes, b"", proof.checkpoint])


def parse(data: bytes) -> TlogProof:
    """What a `.tlog-proof` file says; nothing is verified. Raises `LedgerCorrupt` at anything but `encode`'s form."""
    if len(data) > limits.proof_bytes_max:
        raise LedgerCorrupt(f"The proof has more than {limits.proof_bytes_max} bytes.")
    head, _, checkpoint = data.partition(b"\n\n")
    header, *lines = head.split(b"\n")
    if header != _HEADER:
        raise LedgerCorrupt("That is no proof of a transparency log.", hint="Its first line is c2sp.org/tlog-proof@v1.")
    parse_note(checkpoint)
    extra = b""
    if lines and lines[0].startswith(_EXTRA):
        extra = _decode(lines.pop(0).removeprefix(_EXTRA), "extra data")
        if not extra:
            raise LedgerCorrupt("The proof has a line for extra data, but none in it.")
    index = _INDEX.fullmatch(lines.pop(0)) if lines else None
    if not index:
        raise LedgerCorrupt("The proof does not say the index of its entry.")
    if len(lines) > limits.proof_hashes_max:
        raise LedgerCorrupt(f"The proof has more than {limits.proof_hashes_max} hashes.")
    hashes = tuple(_decode(line, "hash") for line in lines)
    if any(len(hash_) != HASH_BYTES for hash_ in hashes):
        raise LedgerCorrupt(f"A hash of the proof is not {HASH_BYTES} bytes long.")
    return TlogProof(int(index[1]), hashes, checkpoint, extra)


def _decode(encoded: bytes, what: str) -> bytes:
    try:
        return decode_base64(encoded)
    except ValueError as error:
        raise LedgerCorrupt(f"The proof's {what} cannot be read.") from error


def check(proof: TlogProof, entry: bytes, policy: Policy, now: float | None = None) -> Opened:
    """The checkpoint under which `entry` stands, and who cosigned it. Raises `LedgerCorrupt` unless both steps hold.

    `now` in seconds since 1970, as `Policy.open` takes it.
    """
    opened = policy.open(proof.checkpoint, now)
    head = opened.checkpoint
    verify_inclusion(proof.index, head.size, leaf_hash(entry), proof.hashes, head.root)
    return opened
