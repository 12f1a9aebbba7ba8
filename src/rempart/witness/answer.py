"""`answer`: one submission and what is known of its log become what to answer and what to remember (pure).

Source: C2SP tlog-witness, `add-checkpoint`. In this order:

1. 400 when the body cannot be read, 404 when the origin is unknown.
2. 403 unless a trusted key signed. Lines of unknown keys are ignored; a bad one of a trusted key is refused.
3. 400 when the old size is above the checkpoint's.
4. 409, with the latest size, when the old size is not the latest one, or when sizes are equal and roots are not.
5. 422 when the hashes do not prove that the latest tree is a prefix of the new one.
6. 200 with cosignatures. What is to be remembered must be durable before any of this answer is sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from rempart.errors import LedgerCorrupt
from rempart.ledger.log.checkpoint import (
    Checkpoint,
    Note,
    NoteKey,
    Signature,
    read_note,
    read_text,
    signed_by,
    with_signatures,
)
from rempart.ledger.log.cosignature import ED25519, Cosigner
from rempart.ledger.log.merkle import EMPTY_ROOT, verify_consistency
from rempart.ledger.log.submission import SIZE_TYPE, Submission, encode_size

TEXT: Final = b"text/plain; charset=utf-8"


class Known(msgspec.Struct, frozen=True):
    """What a witness knows of one log: the keys that it trusts, and the latest tree that it cosigned."""

    keys: tuple[NoteKey, ...]
    size: int = 0
    root: bytes = EMPTY_ROOT


class Answer(msgspec.Struct, frozen=True):
    """Status, body and content type of the answer."""

    status: int
    body: bytes
    content_type: bytes = TEXT
    remember: bytes = b""
    """The note to be kept as the latest one, before this is sent; empty: nothing has changed."""


def refusal(status: int, reason: str) -> Answer:
    """Without anything to be remembered."""
    return Answer(status, reason.encode() + b"\n")


def origin_of(submission: Submission) -> str:
    """Of which log it is. Raises `LedgerCorrupt` when the note holds no checkpoint."""
    return read_text(read_note(submission.note).text).origin


def answer(submission: Submission, known: Known | None, cosigners: Sequence[Cosigner], now: int) -> Answer:
    """`known` of the submission's origin, None for an unknown one; `now` in whole seconds since 1970."""
    note = read_note(submission.note)
    checkpoint = read_text(note.text)
    if known is None:
        return refusal(404, "The origin is unknown to this witness.")
    try:
        signed = [key for key in known.keys if signed_by(key, note)]
    except LedgerCorrupt as error:
        return refusal(403, error.message)
    if not signed:
        return refusal(403, "No trusted key of this origin signed the checkpoint.")
    if submission.old > checkpoint.size:
        return refusal(400, "The old size is above the checkpoint's.")
    same_size = checkpoint.size == known.size
    if submission.old != known.size or (same_size and checkpoint.root != known.root):
        return Answer(409, encode_size(known.size), SIZE_TYPE)
    try:
        verify_consistency(known.size, checkpoint.size, known.root, checkpoint.root, submission.proof)
    except LedgerCorrupt as error:
        return refusal(422, error.message)
    lines = [one.cosign(note.text, now) for one in cosigners if _covers(one, note.text, checkpoint)]
    remember = b""
    if not same_size:
        kept = tuple(one for one in note.signatures if _is_of(one, signed))
        remember = with_signatures(Note(note.text, kept).encode(), lines)
    return Answer(200, b"".join(lines), TEXT, remember)


def _covers(cosigner: Cosigner, text: bytes, checkpoint: Checkpoint) -> bool:
    """tlog-cosignature: an ML-DSA-44 signature leaves extension lines out, and is then not given."""
    return cosigner.verifier.kind == ED25519 or text == checkpoint.text()


def _is_of(signature: Signature, keys: Sequence[NoteKey]) -> bool:
    return any((signature.name, signature.key_id) == (key.name, key.key_id) for key in keys)
