"""`rempart.ledger.log.cosignature`: what is signed, for each of the two types, and what is refused."""

from __future__ import annotations

import base64
import sys
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PublicKey

from rempart.errors import LedgerCorrupt, MissingDependency
from rempart.ledger.log.checkpoint import (
    Checkpoint,
    Signer,
    encode_vkey,
    read_note,
    read_signatures,
    signed_by,
    with_signatures,
)
from rempart.ledger.log.cosignature import ED25519, ML_DSA_44, CosignatureVerifier, Cosigner
from rempart.ledger.log.merkle import EMPTY_ROOT

ORIGIN = "rempart.test/log"
NAME = "witness.example/w1"
TIME = 1_790_000_000
HEAD = Checkpoint(ORIGIN, 300, bytes(range(32)))
EXTENDED = HEAD.text() + b"an extension line\n"
LOG = Signer(ORIGIN, bytes(32))
COSIGNERS = [Cosigner(NAME, b"\x01" * 32, ED25519), Cosigner(NAME, b"\x01" * 32, ML_DSA_44)]
ED, PQ = COSIGNERS
both = pytest.mark.parametrize("cosigner", COSIGNERS, ids=["Ed25519", "ML-DSA-44"])


def value_of(line: bytes) -> bytes:
    (signature,) = read_signatures(line)
    return signature.value


@both
def test_a_cosignature_is_found_in_a_note_with_its_time(cosigner: Cosigner) -> None:
    note = with_signatures(LOG.sign(HEAD), [cosigner.cosign(HEAD.text(), TIME)])
    assert signed_by(cosigner.verifier, read_note(note)) == [TIME]
    assert LOG.verifier.open(note) == HEAD


def test_the_ed25519_signature_is_of_two_lines_and_the_whole_text() -> None:
    value = value_of(ED.cosign(EXTENDED, TIME))
    assert len(value) == 8 + 64
    assert value[:8] == TIME.to_bytes(8, "big")
    key = Ed25519PublicKey.from_public_bytes(ED.verifier.public_key)
    key.verify(value[8:], b"cosignature/v1\ntime 1790000000\n" + EXTENDED)


def test_the_ml_dsa_signature_is_of_the_structure_in_the_standard() -> None:
    value = value_of(PQ.cosign(HEAD.text(), TIME))
    assert len(value) == 8 + 2420
    message = (
        b"subtree/v1\n\0"
        + b"\x12witness.example/w1"
        + TIME.to_bytes(8, "big")
        + b"\x10rempart.test/log"
        + (0).to_bytes(8, "big")
        + (300).to_bytes(8, "big")
        + HEAD.root
    )
    assert PQ.verifier.message(HEAD.text(), TIME) == message
    MLDSA44PublicKey.from_public_bytes(PQ.verifier.public_key).verify(value[8:], message)


@both
def test_a_verifier_key_is_written_and_read_back(cosigner: Cosigner) -> None:
    verifier = cosigner.verifier
    again = CosignatureVerifier.from_vkey(f"{verifier.vkey}\n")
    assert (again.name, again.kind, again.public_key, again.key_id) == (
        verifier.name,
        verifier.kind,
        verifier.public_key,
        verifier.key_id,
    )
    kind = bytes([verifier.kind])
    assert verifier.key_id == sha256(NAME.encode() + b"\n" + kind + verifier.public_key).digest()[:4]
    assert base64.b64decode(verifier.vkey.split("+", 2)[2]) == kind + verifier.public_key


@both
def test_nothing_else_passes_for_what_was_cosigned(cosigner: Cosigner) -> None:
    value = value_of(cosigner.cosign(HEAD.text(), TIME))
    assert cosigner.verifier.verify(HEAD.text(), value) == TIME
    others = [
        Checkpoint("another.test/log", HEAD.size, HEAD.root).text(),
        Checkpoint(ORIGIN, 301, HEAD.root).text(),
        Checkpoint(ORIGIN, HEAD.size, bytes(32)).text(),
        EXTENDED,
    ]
    for text in others:
        with pytest.raises(LedgerCorrupt):
            cosigner.verifier.verify(text, value)
    later = (TIME + 1).to_bytes(8, "big") + value[8:]
    for changed in (later, value[:-1], value + b"\0", value[:8], b"", value[:-1] + bytes([value[-1] ^ 1])):
        with pytest.raises(LedgerCorrupt):
            cosigner.verifier.verify(HEAD.text(), changed)


def test_the_ml_dsa_signature_names_its_signer() -> None:
    value = value_of(PQ.cosign(HEAD.text(), TIME))
    with pytest.raises(LedgerCorrupt, match="not valid"):
        CosignatureVerifier("another.example", ML_DSA_44, PQ.verifier.public_key).verify(HEAD.text(), value)


def test_extension_lines_stand_under_ed25519_alone() -> None:
    assert ED.verifier.verify(EXTENDED, value_of(ED.cosign(EXTENDED, TIME))) == TIME
    with pytest.raises(LedgerCorrupt, match="extension lines"):
        PQ.cosign(EXTENDED, TIME)


@both
@pytest.mark.parametrize("text", [b"", b"\n", b"none\n", HEAD.text()[:-1], HEAD.text() + b"\n", b"\xff\n1\nx\n"])
def test_only_checkpoints_are_cosigned(cosigner: Cosigner, text: bytes) -> None:
    with pytest.raises(LedgerCorrupt):
        cosigner.cosign(text, TIME)


@both
def test_an_empty_tree_is_cosigned_under_its_own_root_alone(cosigner: Cosigner) -> None:
    assert cosigner.cosign(Checkpoint(ORIGIN, 0, EMPTY_ROOT).text(), TIME)
    with pytest.raises(LedgerCorrupt, match="empty tree"):
        cosigner.cosign(Checkpoint(ORIGIN, 0, bytes(32)).text(), TIME)


@both
@pytest.mark.parametrize("time", [-1, 2**63])
def test_times_that_a_cosignature_cannot_bear(cosigner: Cosigner, time: int) -> None:
    with pytest.raises(ValueError, match="no time"):
        cosigner.cosign(HEAD.text(), time)


@both
def test_a_time_from_2_to_the_63_is_refused(cosigner: Cosigner) -> None:
    value = (2**63).to_bytes(8, "big") + value_of(cosigner.cosign(HEAD.text(), 2**63 - 1))[8:]
    with pytest.raises(LedgerCorrupt, match="cannot be read"):
        cosigner.verifier.verify(HEAD.text(), value)


def test_only_ml_dsa_can_leave_the_time_unsaid() -> None:
    assert PQ.verifier.verify(HEAD.text(), value_of(PQ.cosign(HEAD.text(), 0))) == 0
    with pytest.raises(ValueError, match="no time"):
        ED.cosign(HEAD.text(), 0)


def test_a_log_signs_with_ml_dsa_beside_ed25519() -> None:
    second = Cosigner(ORIGIN, b"\x05" * 32, ML_DSA_44)
    note = with_signatures(LOG.sign(HEAD), [second.cosign(HEAD.text(), 0)])
    assert LOG.verifier.open(note) == HEAD
    assert signed_by(second.verifier, read_note(note)) == [0]


def test_names_and_origins_over_255_bytes_do_not_fit_under_ml_dsa() -> None:
    wide = "ü" * 128  # 128 characters, 256 bytes
    with pytest.raises(LedgerCorrupt, match="256 bytes"):
        Cosigner(wide, bytes(32), ML_DSA_44).cosign(HEAD.text(), TIME)
    with pytest.raises(LedgerCorrupt, match="256 bytes"):
        PQ.cosign(Checkpoint(wide, 1, bytes(32)).text(), TIME)
    assert Cosigner("ü" * 127, bytes(32), ML_DSA_44).cosign(HEAD.text(), TIME)


@pytest.mark.parametrize(
    ("kind", "public_key"),
    [
        (ED25519, bytes(31)),
        (ED25519, bytes(33)),
        (ED25519, bytes(1312)),
        (ML_DSA_44, bytes(32)),
        (ML_DSA_44, b"\0"),
        (1, bytes(32)),
        (5, bytes(32)),
    ],
)
def test_keys_of_another_type_or_length_do_not_cosign(kind: int, public_key: bytes) -> None:
    with pytest.raises(ValueError, match="type"):
        CosignatureVerifier(NAME, kind, public_key)
    with pytest.raises(LedgerCorrupt, match="no type that cosigns") as caught:
        CosignatureVerifier.from_vkey(encode_vkey(NAME, kind, public_key))
    assert caught.value.hint


def test_a_seed_has_32_bytes() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Cosigner(NAME, bytes(31))
    with pytest.raises(ValueError, match="no type"):
        Cosigner(NAME, bytes(32), 2)


def test_a_library_without_ml_dsa_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    vkey = PQ.verifier.vkey
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.asymmetric.mldsa", None)
    for build in (lambda: Cosigner(NAME, bytes(32), ML_DSA_44), lambda: CosignatureVerifier.from_vkey(vkey)):
        with pytest.raises(MissingDependency, match="ML-DSA-44") as caught:
            build()
        assert caught.value.hint
    assert Cosigner(NAME, bytes(32), ED25519).cosign(HEAD.text(), TIME)
