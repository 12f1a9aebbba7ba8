"""Published examples of C2SP tlog and the cases of transparency-dev/merkle; `vectors/tlog.json` names the sources."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from rempart.errors import LedgerCorrupt
from rempart.ledger.log.checkpoint import Note, Signer, Verifier, parse_note, read_note, read_signatures, signed_by
from rempart.ledger.log.cosignature import ED25519, CosignatureVerifier, Cosigner
from rempart.ledger.log.merkle import leaf_hash, verify_consistency, verify_inclusion
from rempart.ledger.log.policy import Policy

VECTORS: dict[str, Any] = json.loads((Path(__file__).parent / "vectors" / "tlog.json").read_text())


# Notes.


def test_the_example_note_is_read_and_written_back() -> None:
    example = VECTORS["signed-note"]
    note = read_note(example["note"].encode())
    assert note.text.decode() == example["text"]
    assert [signature.name for signature in note.signatures] == [example["name"]]
    assert [len(signature.value) for signature in note.signatures] == [64]
    assert note.encode().decode() == example["note"]


SUMDB = VECTORS["sumdb-note"]
PETER, ENOCH = (Verifier.from_vkey(vkey) for vkey in SUMDB["vkeys"])
PETERS_LINE, ENOCHS_LINE = (line.encode() for line in SUMDB["lines"])
TEXT: bytes = SUMDB["text"].encode()


def sumdb_note(*lines: bytes) -> Note:
    return read_note(TEXT + b"\n" + b"".join(lines))


def test_gos_signer_and_ours_sign_alike() -> None:
    signer = Signer("PeterNeumann", base64.b64decode(SUMDB["seed"])[1:])
    assert signer.verifier.vkey == SUMDB["vkeys"][0]
    assert signer.line(TEXT) == PETERS_LINE


def test_each_of_two_signers_of_gos_note_is_found() -> None:
    assert signed_by(PETER, sumdb_note(PETERS_LINE, ENOCHS_LINE)) == [0]
    assert signed_by(ENOCH, sumdb_note(PETERS_LINE, ENOCHS_LINE)) == [0]
    assert signed_by(ENOCH, sumdb_note(PETERS_LINE)) == []


@pytest.mark.parametrize(
    "note",
    [
        TEXT,
        TEXT + b"\n",
        TEXT + b"\n" + PETERS_LINE[:-1],
        b"\x01" + TEXT + b"\n" + PETERS_LINE,
        b"\xff" + TEXT + b"\n" + PETERS_LINE,
        TEXT + b"\n" + PETERS_LINE.replace(b"PeterNeumann", b"Bad Name"),
        TEXT + b"\n" + PETERS_LINE + b"Unexpected line.\n",
        TEXT + b"\n" + PETERS_LINE * 101,
    ],
)
def test_what_go_refuses_as_a_note_is_refused(note: bytes) -> None:
    with pytest.raises(LedgerCorrupt):
        read_note(note)


def test_a_signature_that_go_finds_invalid_is_invalid() -> None:
    with pytest.raises(LedgerCorrupt):
        signed_by(PETER, sumdb_note(PETERS_LINE[:62] + b"ABCD" + PETERS_LINE[62:]))


def test_any_part_of_a_verifier_key_is_none() -> None:
    whole: str = SUMDB["vkeys"][0]
    parts = {whole[start:end] for start in range(len(whole)) for end in range(start + 1, len(whole) + 1)} - {whole}
    changed = [whole[:at] + chr(ord(whole[at]) + 1) + whole[at + 1 :] for at in range(len(whole))]
    for vkey in (*parts, *changed, *SUMDB["refused vkeys"]):
        with pytest.raises(LedgerCorrupt):
            Verifier.from_vkey(vkey)


# Checkpoints and cosignatures.


def test_the_checkpoint_of_c2sps_issue_is_signed_alike() -> None:
    vector = VECTORS["checkpoint"]
    note = vector["note"].encode()
    signer = Signer(parse_note(note)[1].origin, bytes.fromhex(vector["seed"]))
    assert signer.sign(signer.verifier.open(note)) == note


def test_the_example_of_a_cosignature_has_the_time_and_the_message_that_the_standard_shows() -> None:
    vector = VECTORS["cosignature"]
    note = read_note(vector["note"].encode())
    witness = note.signatures[1]
    assert witness.name == "witness.example.com/w1"
    assert int.from_bytes(witness.value[:8], "big") == vector["time"]
    assert len(witness.value) == 8 + 64
    verifier = Cosigner(witness.name, bytes(32), ED25519).verifier
    assert verifier.message(note.text, vector["time"]).decode() == vector["message"]


ML_DSA = VECTORS["ml-dsa-44"]


def test_the_ml_dsa_signature_of_another_implementation_is_valid() -> None:
    key = CosignatureVerifier.from_vkey(ML_DSA["vkey"])
    assert key.vkey == ML_DSA["vkey"]
    assert signed_by(key, read_note(ML_DSA["note"].encode())) == [0]


def test_a_policy_takes_the_log_that_signs_with_ml_dsa_alone() -> None:
    policy = Policy.parse(f"log {ML_DSA['vkey']}\nquorum none\n".encode())
    assert policy.open(ML_DSA["note"].encode()).checkpoint.size == 1


def test_no_change_of_the_foreign_ml_dsa_signature_is_accepted() -> None:
    key = CosignatureVerifier.from_vkey(ML_DSA["vkey"])
    text, value = read_note(ML_DSA["note"].encode()).text, read_signatures(ML_DSA["note"].encode().split(b"\n\n")[1])[0]
    for at in (0, 7, 8, 100, 2_000, len(value.value) - 1):
        changed = bytearray(value.value)
        changed[at] ^= 1
        with pytest.raises(LedgerCorrupt):
            key.verify(text, bytes(changed))


# Merkle proofs. Of each proof all the wrong ones that transparency-dev/merkle makes of it.

MERKLE = VECTORS["merkle"]
ROOTS = [bytes.fromhex(MERKLE["empty root"]), *map(bytes.fromhex, MERKLE["roots"])]
EMPTY = ROOTS[0]
RANDOM = bytes.fromhex(MERKLE["random hash"])


class Inclusion(NamedTuple):
    name: str
    index: int
    size: int
    leaf: bytes
    root: bytes
    proof: list[bytes]
    holds: bool = False


class Consistency(NamedTuple):
    name: str
    old: int
    new: int
    old_root: bytes
    new_root: bytes
    proof: list[bytes]
    holds: bool = False


def flipped(proof: list[bytes], at: int, mask: int) -> list[bytes]:
    return [bytes([hash_[0] ^ mask]) + hash_[1:] if place == at else hash_ for place, hash_ in enumerate(proof)]


def of_inclusion(vector: dict[str, Any]) -> Iterator[Inclusion]:
    index, size = vector["index"], vector["size"]
    proof = [bytes.fromhex(hash_) for hash_ in vector["proof"]]
    good = Inclusion(
        "happy path", index, size, leaf_hash(bytes.fromhex(MERKLE["leaves"][str(index)])), ROOTS[size], proof
    )
    yield good._replace(holds=True)
    yield good._replace(name="index - 1", index=index - 1)
    yield good._replace(name="index + 1", index=index + 1)
    yield good._replace(name="index xor 2", index=index ^ 2)
    yield good._replace(name="twice the size", size=size * 2)
    yield good._replace(name="half the size", size=size // 2)
    yield good._replace(name="wrong leaf", leaf=b"WrongLeaf")
    yield good._replace(name="empty root", root=EMPTY)
    yield good._replace(name="random root", root=RANDOM)
    yield good._replace(name="garbage behind", proof=[*proof, b""])
    yield good._replace(name="root behind", proof=[*proof, good.root])
    yield good._replace(name="garbage in front", proof=[b"", *proof])
    yield good._replace(name="root in front", proof=[good.root, *proof])
    for at in range(len(proof)):
        yield good._replace(name=f"bit 3 of hash {at}", proof=flipped(proof, at, 8))
    if proof:
        yield good._replace(name="last hash removed", proof=proof[:-1])
    if len(proof) > 1:
        yield good._replace(name="a hash inserted", proof=[proof[0], RANDOM, *proof[1:]])


def inclusions() -> Iterator[Inclusion]:
    for vector in MERKLE["inclusion"]:
        yield from of_inclusion(vector)
    for index, size in ((0, 0), (0, 1), (1, 0), (2, 1)):
        yield Inclusion(f"{index} in {size}, random leaf", index, size, RANDOM, b"", [])
        yield Inclusion(f"{index} in {size}, empty root", index, size, b"", EMPTY, [])
        yield Inclusion(f"{index} in {size}, empty root and random leaf", index, size, RANDOM, EMPTY, [])
    only = leaf_hash(b"data")
    yield Inclusion("one entry", 0, 1, only, only, [], True)
    yield Inclusion("one entry, no leaf", 0, 1, b"", only, [])
    yield Inclusion("one entry, no root", 0, 1, only, b"", [])
    yield Inclusion("one entry, neither", 0, 1, b"", b"", [])


def of_consistency(vector: dict[str, Any]) -> Iterator[Consistency]:
    old, new = vector["old"], vector["new"]
    proof = [bytes.fromhex(hash_) for hash_ in vector["proof"]]
    good = Consistency("happy path", old, new, ROOTS[old], ROOTS[new], proof)
    yield good._replace(holds=True)
    if not proof:
        return
    yield good._replace(name="old - 1", old=old - 1)
    yield good._replace(name="old + 1", old=old + 1)
    yield good._replace(name="old xor 2", old=old ^ 2)
    yield good._replace(name="twice the new", new=new * 2)
    yield good._replace(name="half the new", new=new // 2)
    yield good._replace(name="wrong old root", old_root=b"WrongRoot")
    yield good._replace(name="wrong new root", new_root=b"WrongRoot")
    yield good._replace(name="swapped roots", old_root=good.new_root, new_root=good.old_root)
    yield good._replace(name="no proof", proof=[])
    for name, hash_ in (("garbage", b""), ("old root", good.old_root), ("new root", good.new_root)):
        yield good._replace(name=f"{name} behind", proof=[*proof, hash_])
        yield good._replace(name=f"{name} in front", proof=[hash_, *proof])
    yield good._replace(name="first hash twice", proof=[proof[0], *proof])
    yield good._replace(name="last hash removed", proof=proof[:-1])
    for at in range(len(proof)):
        yield good._replace(name=f"bit 4 of hash {at}", proof=flipped(proof, at, 16))


def consistencies() -> Iterator[Consistency]:
    """Its roots that do not matter are texts of 12 bytes, which we refuse as no hashes: here they are hashes."""
    for vector in MERKLE["consistency"]:
        yield from of_consistency(vector)
    one, other = sha256(b"don't care 1").digest(), sha256(b"don't care 2").digest()
    for size in (0, 1):
        yield Consistency(f"two roots of size {size}", size, size, one, other, [])
        yield Consistency(f"the empty root and another, size {size}", size, size, EMPTY, other, [])
        yield Consistency(f"a proof where none is needed, size {size}", size, size, EMPTY, EMPTY, [EMPTY])
    yield Consistency("empty tree, wrong root", 0, 0, one, one, [])
    yield Consistency("from an empty tree, wrong root", 0, 1, one, other, [])
    yield Consistency("one root of size 1", 1, 1, other, other, [], True)
    yield Consistency("into the past", 1, 0, one, other, [])
    yield Consistency("into the past again", 2, 1, one, other, [])
    yield Consistency("no proof, other size", 1, 2, one, other, [])
    yield Consistency("from an empty tree, with a proof", 0, 1, EMPTY, EMPTY, [EMPTY])
    # There an empty tree has no consistency; tlog-witness asks for it with an empty proof ("old 0").
    yield Consistency("from the empty tree", 0, 1, EMPTY, other, [], True)


def test_they_are_as_many_as_published() -> None:
    assert len(list(inclusions())) == len(list(consistencies())) == 98


@pytest.mark.parametrize("case", list(inclusions()), ids=lambda case: case.name)
def test_inclusion(case: Inclusion) -> None:
    if case.holds:
        verify_inclusion(case.index, case.size, case.leaf, case.proof, case.root)
        return
    with pytest.raises(LedgerCorrupt):
        verify_inclusion(case.index, case.size, case.leaf, case.proof, case.root)


@pytest.mark.parametrize("case", list(consistencies()), ids=lambda case: case.name)
def test_consistency(case: Consistency) -> None:
    if case.holds:
        verify_consistency(case.old, case.new, case.old_root, case.new_root, case.proof)
        return
    with pytest.raises(LedgerCorrupt):
        verify_consistency(case.old, case.new, case.old_root, case.new_root, case.proof)
