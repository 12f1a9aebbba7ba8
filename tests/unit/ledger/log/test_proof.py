"""`rempart.ledger.log.proof`: the file of a proof, and what is checked of it."""

from __future__ import annotations

import base64

import pytest

from rempart import limits
from rempart.errors import LedgerCorrupt
from rempart.ledger.log import proof
from rempart.ledger.log.checkpoint import Checkpoint, Signer, with_signatures
from rempart.ledger.log.cosignature import Cosigner
from rempart.ledger.log.merkle import inclusion_proof, leaf_hash, root_of
from rempart.ledger.log.policy import Policy
from rempart.ledger.log.proof import TlogProof

ORIGIN = "rempart.test/log"
LOG = Signer(ORIGIN, bytes(32))
WITNESS = Cosigner("witness.example/w", b"\x01" * 32)
TIME = 1_790_000_000
ENTRIES = [b'{"n":%d}' % number for number in range(11)]
HASHES = [leaf_hash(entry) for entry in ENTRIES]
HEAD = Checkpoint(ORIGIN, 11, root_of(HASHES))
NOTE = with_signatures(LOG.sign(HEAD), [WITNESS.cosign(HEAD.text(), TIME)])
POLICY = Policy.parse(f"log {LOG.verifier.vkey}\nwitness w {WITNESS.verifier.vkey}\nquorum w\n".encode())


def proof_of(index: int) -> TlogProof:
    def read(level: int, place: int) -> bytes:
        return root_of(HASHES[place << level : place + 1 << level])

    return TlogProof(index, tuple(inclusion_proof(index, 11, read)), NOTE, ENTRIES[index])


GOOD = proof_of(5)
DATA = proof.encode(GOOD)
HASH = base64.b64encode(HASHES[0])


@pytest.mark.parametrize("index", range(11))
def test_each_entry_is_shown_to_stand_in_the_log(index: int) -> None:
    read = proof.parse(proof.encode(proof_of(index)))
    assert read == proof_of(index)
    opened = proof.check(read, read.extra, POLICY, now=TIME)
    assert opened.checkpoint == HEAD
    assert opened.witnesses == {"w": TIME}


def test_a_proof_is_written_as_the_standard_shows() -> None:
    lines = DATA.split(b"\n")
    assert lines[0] == b"c2sp.org/tlog-proof@v1"
    assert lines[1] == b"extra " + base64.b64encode(ENTRIES[5])
    assert lines[2] == b"index 5"
    assert [base64.b64decode(line) for line in lines[3:7]] == list(GOOD.hashes)
    assert lines[7] == b""
    assert DATA.endswith(b"\n\n" + NOTE)


def test_a_proof_without_extra_data_has_no_line_for_it_and_one_of_a_single_leaf_no_hashes() -> None:
    alone = TlogProof(0, (), LOG.sign(Checkpoint(ORIGIN, 1, HASHES[0])))
    assert proof.encode(alone) == b"c2sp.org/tlog-proof@v1\nindex 0\n\n" + alone.checkpoint
    assert proof.parse(proof.encode(alone)) == alone
    no_witness = Policy.parse(f"log {LOG.verifier.vkey}\nquorum none\n".encode())
    assert proof.check(alone, ENTRIES[0], no_witness).checkpoint.size == 1


def test_extra_data_is_not_what_is_proved() -> None:
    other = TlogProof(5, GOOD.hashes, NOTE, b"anything")
    assert proof.check(other, ENTRIES[5], POLICY)
    with pytest.raises(LedgerCorrupt, match="does not lead to the root"):
        proof.check(other, other.extra, POLICY)


@pytest.mark.parametrize("index", [0, 4, 6, 10, 11, 2**62])
def test_another_index_is_refused(index: int) -> None:
    with pytest.raises(LedgerCorrupt):
        proof.check(TlogProof(index, GOOD.hashes, NOTE), ENTRIES[5], POLICY)


def test_another_entry_is_refused() -> None:
    for entry in (ENTRIES[4], b"", HASHES[5]):
        with pytest.raises(LedgerCorrupt, match="does not lead to the root"):
            proof.check(GOOD, entry, POLICY)


def test_a_checkpoint_that_the_policy_refuses_proves_nothing() -> None:
    for note in (LOG.sign(HEAD), Signer(ORIGIN, b"\x02" * 32).sign(HEAD)):
        with pytest.raises(LedgerCorrupt, match=r"lacks the quorum|signed by no log"):
            proof.check(TlogProof(5, GOOD.hashes, note), ENTRIES[5], POLICY)
    with pytest.raises(LedgerCorrupt, match="lacks the quorum"):
        proof.check(GOOD, ENTRIES[5], POLICY, now=TIME - 3600)


def text(head: bytes) -> bytes:
    return head + b"\n\n" + NOTE


HEADER = b"c2sp.org/tlog-proof@v1"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        NOTE,
        HEADER,
        text(HEADER),
        text(b"c2sp.org/tlog-proof@v2\nindex 0"),
        text(b" " + HEADER + b"\nindex 0"),
        text(HEADER + b"\r\nindex 0"),
        text(HEADER + b"\nindex"),
        text(HEADER + b"\nindex "),
        text(HEADER + b"\nindex -5"),
        text(HEADER + b"\nindex +5"),
        text(HEADER + b"\nindex 05"),
        text(HEADER + b"\nindex 5 "),
        text(HEADER + b"\nindex\t5"),
        text(HEADER + b"\nindex notanumber"),
        text(HEADER + b"\nindex " + b"9" * 20),
        text(HEADER + "\nindex ٥".encode()),
        text(HEADER + b"\nextra !!notbase64!!\nindex 0"),
        text(HEADER + b"\nextra \nindex 0"),
        text(HEADER + b"\nextra\nindex 0"),
        text(HEADER + b"\nextra AB==\nindex 0"),
        text(HEADER + b"\nextra AAAA"),
        text(HEADER + b"\nextra AAAA\nextra AAAA\nindex 0"),
        text(HEADER + b"\nindex 0\nextra AAAA"),
        text(HEADER + b"\nindex 0\nindex 0"),
        text(HEADER + b"\nindex 0\n!!notbase64!!"),
        text(HEADER + b"\nindex 0\n" + base64.b64encode(bytes(64))),
        text(HEADER + b"\nindex 0\n" + base64.b64encode(bytes(31))),
        text(HEADER + b"\nindex 0\n" + HASH + b" "),
        text(HEADER + b"\nindex 0" + (b"\n" + HASH) * (limits.proof_hashes_max + 1)),
        text(HEADER + b"\nextra " + base64.b64encode(bytes(limits.proof_bytes_max)) + b"\nindex 0"),
        text(HEADER + b"\nindex 0\n"),
        HEADER + b"\nindex 0\n" + NOTE,
        HEADER + b"\nindex 0\n\n",
        HEADER + b"\nindex 0\n\nno checkpoint\n",
        HEADER + b"\nindex 0\n\n" + HEAD.text(),
        text(HEADER + b"\nindex 0") + b"\n",
        text(HEADER + b"\nindex 0")[:-1],
    ],
)
def test_what_is_no_proof_is_refused(data: bytes) -> None:
    with pytest.raises(LedgerCorrupt):
        proof.parse(data)


def test_an_entry_of_the_greatest_length_fits_as_extra_data() -> None:
    large = TlogProof(0, (HASHES[0],) * limits.proof_hashes_max, NOTE, bytes(limits.entry_bytes_max))
    assert proof.parse(proof.encode(large)) == large
