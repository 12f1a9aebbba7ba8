"""Another implementation of C2SP tlog, tlog-scales: each reads, signs and proves what the other made."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from tlog_scales.backend import LocalBackend
from tlog_scales.reader import TilesReader
from tlog_scales.signing import MLDSA44CosignatureSigner, PlainEd25519Signer, Vkey
from tlog_scales.tlog import Checkpoint as ForeignCheckpoint
from tlog_scales.tlog import InclusionProof, InclusionProofInvalid
from tlog_scales.writer import TilesWriter

from rempart.errors import LedgerCorrupt
from rempart.ledger.log import proof, tiles
from rempart.ledger.log.checkpoint import Checkpoint, Signer, parse_note, with_signatures
from rempart.ledger.log.cosignature import ED25519, ML_DSA_44, CosignatureVerifier, Cosigner
from rempart.ledger.log.integrate import Integrator
from rempart.ledger.log.merkle import consistency_proof, inclusion_proof, leaf_hash, root_of, verify_consistency
from rempart.ledger.log.policy import Policy

ORIGIN = "rempart.test/log"
SIZE = 600
ENTRIES = [b'{"n":%d}' % number for number in range(SIZE)]
HASHES = [leaf_hash(entry) for entry in ENTRIES]
SIGNER = Signer(ORIGIN, bytes(32))
WITNESS = Cosigner("witness.example/w1", b"\x01" * 32, ED25519)
PQ_LOG = Cosigner(ORIGIN, b"\x02" * 32, ML_DSA_44)
TIME = 1_790_000_000


def read(level: int, place: int) -> bytes:
    return root_of(HASHES[place << level : place + 1 << level])


def head_of(size: int) -> Checkpoint:
    return Checkpoint(ORIGIN, size, root_of(HASHES[:size]))


def test_it_verifies_our_checkpoint_with_three_signatures_of_three_types(tmp_path: Path) -> None:
    Integrator.open(tmp_path, SIGNER).add(0, ENTRIES)
    note = (tmp_path / "checkpoint").read_bytes()
    text, head = parse_note(note)
    whole = with_signatures(note, [PQ_LOG.cosign(text, 0), WITNESS.cosign(text, TIME)])
    theirs = ForeignCheckpoint.from_text(whole.decode())
    assert (theirs.origin, theirs.size, theirs.root_hash) == (head.origin, head.size, head.root)
    for vkey in (SIGNER.verifier.vkey, PQ_LOG.verifier.vkey, WITNESS.verifier.vkey):
        theirs.verify(Vkey.from_string(vkey))
        assert Vkey.from_string(vkey).serialize() == vkey
    assert theirs.serialize().encode() == whole


def test_it_refuses_our_signatures_of_another_checkpoint() -> None:
    other = with_signatures(SIGNER.sign(head_of(8)), [PQ_LOG.cosign(head_of(7).text(), 0)])
    theirs = ForeignCheckpoint.from_text(other.decode())
    theirs.verify(Vkey.from_string(SIGNER.verifier.vkey))
    with pytest.raises(InvalidSignature):
        theirs.verify(Vkey.from_string(PQ_LOG.verifier.vkey))


def test_it_verifies_our_inclusion_proofs() -> None:
    for index, size in ((0, 1), (0, 600), (255, 256), (256, 600), (599, 600), (3, 7)):
        made = proof.parse(
            proof.encode(proof.TlogProof(index, tuple(inclusion_proof(index, size, read)), SIGNER.sign(head_of(size))))
        )
        theirs = InclusionProof(made.index, size, list(made.hashes))
        theirs.check(HASHES[index], root_of(HASHES[:size]))
        with pytest.raises(InclusionProofInvalid):
            theirs.check(leaf_hash(b"another"), root_of(HASHES[:size]))


def test_it_reads_our_tiles_and_its_proofs_verify_here(tmp_path: Path) -> None:
    log = Integrator.open(tmp_path, SIGNER)
    log.add(0, ENTRIES[:300])
    log.add(300, ENTRIES[300:])
    reader = TilesReader(LocalBackend(tmp_path))
    assert reader.get_checkpoint().root_hash == reader.calculate_root_hash() == root_of(HASHES)
    policy = Policy.parse(f"log {SIGNER.verifier.vkey}\nquorum none\n".encode())
    note = (tmp_path / "checkpoint").read_bytes()
    for index in (0, 255, 256, 511, 512, 599):
        hashes = tuple(reader.get_inclusion_proof(index, SIZE).node_hashes)
        assert hashes == tuple(inclusion_proof(index, SIZE, read))
        proof.check(proof.TlogProof(index, hashes, note), reader.get_entry(index), policy)
    for old in (1, 255, 256, 300, 599):
        consistency = reader.get_consistency_proof(old, SIZE)
        assert consistency.node_hashes == consistency_proof(old, SIZE, read)
        consistency.check(root_of(HASHES[:old]), root_of(HASHES))
        verify_consistency(old, SIZE, root_of(HASHES[:old]), root_of(HASHES), consistency.node_hashes)


def test_a_log_that_it_wrote_and_signed_opens_here(tmp_path: Path) -> None:
    log, witness = (
        PlainEd25519Signer(ORIGIN, b"\x03" * 32),
        MLDSA44CosignatureSigner("witness.example/pq", b"\x04" * 32),
    )
    writer = TilesWriter.create(tmp_path / "log", ORIGIN)
    for entry in ENTRIES:
        writer.add_leaf(entry)
    writer.commit([log, witness])
    note = (tmp_path / "log" / "checkpoint").read_bytes()
    policy = Policy.parse(f"log {log.vkey.serialize()}\nwitness pq {witness.vkey.serialize()}\nquorum pq\n".encode())
    opened = policy.open(note)
    assert (opened.checkpoint.size, opened.checkpoint.root) == (SIZE, root_of(HASHES))
    assert list(opened.witnesses) == ["pq"]
    tile = (tmp_path / "log" / tiles.tile_path(0, 1)).read_bytes()
    assert tile == b"".join(HASHES[256:512])


def test_its_ml_dsa_signature_does_not_pass_for_another_size() -> None:
    witness = MLDSA44CosignatureSigner("witness.example/pq", b"\x04" * 32)
    made = ForeignCheckpoint.make_signed(ORIGIN, 7, root_of(HASHES[:7]), [witness])
    key = CosignatureVerifier.from_vkey(witness.vkey.serialize())
    value = made.signatures[0].payload
    assert key.verify(head_of(7).text(), value) > 0
    with pytest.raises(LedgerCorrupt):
        key.verify(head_of(8).text(), value)
