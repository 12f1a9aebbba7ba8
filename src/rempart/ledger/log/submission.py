"""`Submission`: what a log sends to a witness (pure). The answer is read here as well.

Source: C2SP tlog-witness, `add-checkpoint`. A line `old <size>`, at most 63 hashes in base64, an empty line, and the
signed note. The hashes prove that the tree of the old size is a prefix of the one that the note signs.
"""

from __future__ import annotations

import base64
import re
from typing import Final

import msgspec

from rempart.errors import LedgerCorrupt
from rempart.ledger.log.checkpoint import decode_base64, read_note
from rempart.ledger.log.merkle import HASH_BYTES

PATH: Final = "/add-checkpoint"
SIZE_TYPE: Final = b"text/x.tlog.size"
"""Content type of the body of status 409."""
PROOF_HASHES_MAX: Final = 63
_OLD = re.compile(rb"old (0|[1-9][0-9]{0,18})")
_SIZE = re.compile(rb"(0|[1-9][0-9]{0,18})\n")


class Submission(msgspec.Struct, frozen=True):
    """Old size in leaves, hashes of 32 bytes each, and a signed note."""

    old: int
    proof: tuple[bytes, ...]
    note: bytes


def encode(submission: Submission) -> bytes:
    """The body of the request."""
    hashes = [base64.b64encode(hash_) for hash_ in submission.proof]
    return b"\n".join([b"old %d" % submission.old, *hashes, b"", submission.note])


def parse(body: bytes) -> Submission:
    """Nothing is verified. Raises `LedgerCorrupt` at anything but `encode`'s form."""
    head, blank, note = body.partition(b"\n\n")
    first, *lines = head.split(b"\n")
    old = _OLD.fullmatch(first)
    if not old or not blank:
        raise LedgerCorrupt("The body is no submission to a witness.", hint="Its first line is 'old' and a size.")
    if len(lines) > PROOF_HASHES_MAX:
        raise LedgerCorrupt(f"The consistency proof has more than {PROOF_HASHES_MAX} hashes.")
    try:
        proof = tuple(decode_base64(line) for line in lines)
    except ValueError as error:
        raise LedgerCorrupt("A hash of the consistency proof is not base64.") from error
    if any(len(hash_) != HASH_BYTES for hash_ in proof):
        raise LedgerCorrupt(f"A hash of the consistency proof is not {HASH_BYTES} bytes long.")
    read_note(note)
    return Submission(int(old[1]), proof, note)


def encode_size(size: int) -> bytes:
    """The body of status 409: the size of the latest checkpoint that the witness cosigned."""
    return b"%d\n" % size


def parse_size(body: bytes) -> int:
    """Raises `LedgerCorrupt`."""
    found = _SIZE.fullmatch(body)
    if not found:
        raise LedgerCorrupt("The witness does not say which size it has cosigned.")
    return int(found[1])
