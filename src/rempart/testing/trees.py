"""`Trees`: small logs in memory, to be shown to witnesses: they grow, fork and sign what they are told to."""

from __future__ import annotations

from rempart.ledger.log.checkpoint import Checkpoint, Signer
from rempart.ledger.log.merkle import NodeReader, consistency_proof, leaf_hash, root_of
from rempart.ledger.log.submission import Submission, encode


class Trees:
    """One origin and its key, over any leaves."""

    def __init__(self, origin: str, seed: bytes) -> None:
        self.signer = Signer(origin, seed)
        self.origin = origin

    def checkpoint(self, leaves: list[bytes]) -> Checkpoint:
        return Checkpoint(self.origin, len(leaves), root_of([leaf_hash(leaf) for leaf in leaves]))

    def note(self, leaves: list[bytes]) -> bytes:
        return self.signer.sign(self.checkpoint(leaves))

    def proof(self, old: int, leaves: list[bytes]) -> tuple[bytes, ...]:
        return tuple(consistency_proof(old, len(leaves), reader(leaves)))

    def submission(self, old: int, leaves: list[bytes]) -> bytes:
        """The body of a request, with the proof that fits."""
        return encode(Submission(old, self.proof(old, leaves), self.note(leaves)))


def reader(leaves: list[bytes]) -> NodeReader:
    """The nodes of their tree."""
    hashes = [leaf_hash(leaf) for leaf in leaves]
    return lambda level, place: root_of(hashes[place << level : (place + 1) << level])
