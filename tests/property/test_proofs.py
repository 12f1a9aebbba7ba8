"""Notes, policies and proofs: what holds of all of them, of all bytes that might be one, and of every changed bit."""

from __future__ import annotations

import contextlib
import string
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rempart.errors import LedgerCorrupt, RempartError
from rempart.ledger.log import proof
from rempart.ledger.log.checkpoint import (
    Checkpoint,
    Note,
    Signature,
    Signer,
    parse_note,
    read_note,
    read_signatures,
    with_signatures,
)
from rempart.ledger.log.cosignature import ED25519, ML_DSA_44, CosignatureVerifier, Cosigner
from rempart.ledger.log.merkle import inclusion_proof, leaf_hash, root_of
from rempart.ledger.log.policy import Group, Policy, Witness
from rempart.ledger.log.proof import TlogProof

ORIGIN = "rempart.test/log"
LOG = Signer(ORIGIN, bytes(32))
TIME = 1_790_000_000
ENTRIES = [b'{"n":%d}' % number for number in range(9)]
HASHES = [leaf_hash(entry) for entry in ENTRIES]
HEAD = Checkpoint(ORIGIN, len(HASHES), root_of(HASHES))
COSIGNERS = [Cosigner(f"w.test/{number}", bytes([number + 1]) * 32, ED25519) for number in range(6)]
PQ = Cosigner("w.test/pq", b"\xff" * 32, ML_DSA_44)


def policy_of(*cosigners: Cosigner) -> Policy:
    """The log and all of these."""
    witnesses = [f"witness {number} {cosigner.verifier.vkey}" for number, cosigner in enumerate(cosigners)]
    names = " ".join(str(number) for number in range(len(cosigners)))
    return Policy.parse(
        "\n".join([f"log {LOG.verifier.vkey}", *witnesses, f"group g all {names}", "quorum g\n"]).encode()
    )


def note_of(*cosigners: Cosigner) -> bytes:
    return with_signatures(LOG.sign(HEAD), [cosigner.cosign(HEAD.text(), TIME) for cosigner in cosigners])


def read(level: int, place: int) -> bytes:
    return root_of(HASHES[place << level : place + 1 << level])


POLICY = policy_of(COSIGNERS[0])
NOTE = note_of(COSIGNERS[0])
PROOF = proof.encode(TlogProof(5, tuple(inclusion_proof(5, len(HASHES), read)), NOTE, ENTRIES[5]))


# Round trips.

TEXTS = st.text(st.characters(exclude_categories=["Cc", "Cs"]) | st.just("\n")).map(lambda text: text.encode() + b"\n")
NAMES = st.text(string.ascii_letters + "./é–", min_size=1, max_size=20)
SIGNATURES = st.builds(Signature, NAMES, st.binary(min_size=4, max_size=4), st.binary(min_size=1, max_size=80))


@given(TEXTS, st.lists(SIGNATURES, min_size=1, max_size=64))
def test_any_note_is_read_as_it_was_written(text: bytes, signatures: list[Signature]) -> None:
    note = Note(text, tuple(signatures))
    assert read_note(note.encode()) == note


@given(TEXTS, st.lists(SIGNATURES, min_size=1, max_size=20), st.lists(SIGNATURES, min_size=1, max_size=20))
def test_adding_signatures_changes_no_text_and_loses_no_signer(
    text: bytes, old: list[Signature], new: list[Signature]
) -> None:
    whole = read_note(with_signatures(Note(text, tuple(old)).encode(), [one.line() for one in new]))
    assert whole.text == text
    signers = {(one.name, one.key_id) for one in whole.signatures}
    assert signers == {(one.name, one.key_id) for one in (*old, *new)}
    latest = {(one.name, one.key_id): one for one in new}
    assert set(latest.values()) <= set(whole.signatures)


@given(st.integers(0, 10**18), st.lists(st.binary(min_size=32, max_size=32), max_size=64), st.binary(max_size=2_000))
def test_any_proof_is_read_as_it_was_written(index: int, hashes: list[bytes], extra: bytes) -> None:
    written = TlogProof(index, tuple(hashes), NOTE, extra)
    assert proof.parse(proof.encode(written)) == written


# Quorums.


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    """Witnesses, and groups in any nesting that tlog-policy allows."""
    count = draw(st.integers(1, len(COSIGNERS)))
    lines = [f"log {LOG.verifier.vkey}"]
    lines += [f"witness w{number} {COSIGNERS[number].verifier.vkey}" for number in range(count)]
    names = [f"w{number}" for number in range(count)]
    free = list(names)
    for number in range(draw(st.integers(0, 4))):
        if not free:
            break
        members = draw(st.lists(st.sampled_from(free), min_size=1, unique=True))
        threshold = draw(st.sampled_from(["any", "all", *map(str, range(1, len(members) + 1))]))
        lines.append(f"group g{number} {threshold} {' '.join(members)}")
        free = [name for name in free if name not in members] + [f"g{number}"]
        names.append(f"g{number}")
    lines.append(f"quorum {draw(st.sampled_from([*names, 'none']))}")
    return Policy.parse(("\n".join(lines) + "\n").encode())


def has_witnessed(policy: Policy, name: str, cosigned: set[str]) -> bool:
    """tlog-policy, said naively."""
    defined: dict[str, Witness | Group] = {one.name: one for one in (*policy.witnesses, *policy.groups)}
    match defined[name]:
        case Witness():
            return name in cosigned
        case Group(_, threshold, members):
            return [has_witnessed(policy, member, cosigned) for member in members].count(True) >= threshold


@given(policies(), st.sets(st.integers(0, len(COSIGNERS) - 1)))
def test_a_quorum_is_met_when_the_naive_reading_says_so(policy: Policy, numbers: set[int]) -> None:
    cosigned = {f"w{number}" for number in numbers} & {witness.name for witness in policy.witnesses}
    expected = policy.quorum == "none" or has_witnessed(policy, policy.quorum, cosigned)
    assert policy.is_met(cosigned) == expected
    note = note_of(*(COSIGNERS[number] for number in sorted(numbers)))
    if expected:
        assert set(policy.open(note).witnesses) == cosigned
    else:
        with pytest.raises(LedgerCorrupt, match="lacks the quorum"):
            policy.open(note)


@given(policies(), st.sets(st.integers(0, len(COSIGNERS) - 1)), st.integers(0, len(COSIGNERS) - 1))
def test_one_more_witness_never_spoils_a_quorum(policy: Policy, numbers: set[int], more: int) -> None:
    fewer = {f"w{number}" for number in numbers}
    assert policy.is_met(fewer | {f"w{more}"}) >= policy.is_met(fewer)


# Changed bits.


def changes(data: bytes) -> Iterator[bytes]:
    for at in range(len(data)):
        for bit in range(8):
            yield data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]


def test_no_changed_bit_of_a_note_is_accepted() -> None:
    assert POLICY.open(NOTE).checkpoint == HEAD
    for changed in changes(NOTE):
        with pytest.raises(LedgerCorrupt):
            POLICY.open(changed)


def test_no_changed_bit_of_a_proof_is_accepted() -> None:
    """With the entry that the proof itself brings."""

    def check(data: bytes) -> None:
        found = proof.parse(data)
        proof.check(found, found.extra, POLICY)

    check(PROOF)
    for changed in changes(PROOF):
        with pytest.raises(LedgerCorrupt):
            check(changed)


PQ_NOTE = note_of(PQ)
PQ_POLICY = policy_of(PQ)


@settings(deadline=None)
@given(st.integers(0, len(PQ_NOTE) * 8 - 1))
def test_no_changed_bit_of_an_ml_dsa_cosignature_is_accepted(place: int) -> None:
    at, bit = divmod(place, 8)
    with pytest.raises(LedgerCorrupt):
        PQ_POLICY.open(PQ_NOTE[:at] + bytes([PQ_NOTE[at] ^ 1 << bit]) + PQ_NOTE[at + 1 :])


@pytest.mark.parametrize("data", [NOTE, PROOF], ids=["note", "proof"])
def test_no_cut_and_no_exchange_of_lines_is_accepted(data: bytes) -> None:
    def check(changed: bytes) -> None:
        found = proof.parse(changed) if data is PROOF else TlogProof(5, proof.parse(PROOF).hashes, changed, ENTRIES[5])
        proof.check(found, found.extra, POLICY)

    check(data)
    for at in range(len(data)):
        with pytest.raises(LedgerCorrupt):
            check(data[:at])
    lines = data.splitlines(keepends=True)
    for place, (one, other) in enumerate(pairwise(lines[:-2])):
        with pytest.raises(LedgerCorrupt):
            check(b"".join([*lines[:place], other, one, *lines[place + 2 :]]))


# Any bytes.

PARSERS: list[Callable[[bytes], object]] = [
    read_note,
    read_signatures,
    parse_note,
    POLICY.open,
    PQ_POLICY.open,
    Policy.parse,
    proof.parse,
    lambda data: with_signatures(NOTE, [data]),
    lambda data: CosignatureVerifier.from_vkey(data.decode("utf-8", "surrogateescape")),
    lambda data: COSIGNERS[0].verifier.verify(HEAD.text(), data),
    lambda data: PQ.verifier.verify(data, bytes(2428)),
]
POLICY_FILE = f"log {LOG.verifier.vkey}\nwitness w {PQ.verifier.vkey}\ngroup g 1 w\nquorum g\n".encode()
ITEMS = st.sampled_from(
    [
        "log",
        "witness",
        "group",
        "quorum",
        "none",
        "any",
        "all",
        "0",
        "1",
        "w",
        "#",
        "\udcff",
        COSIGNERS[0].verifier.vkey,
    ]
)
LINES = st.lists(st.lists(ITEMS, max_size=5).map(" ".join), max_size=8).map(
    lambda lines: "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")
)


@st.composite
def spoilt(draw: st.DrawFn) -> bytes:
    """A good file with something else somewhere."""
    good = draw(st.sampled_from([NOTE, PQ_NOTE, PROOF, POLICY_FILE, PQ.verifier.vkey.encode()]))
    start = draw(st.integers(0, len(good)))
    end = draw(st.integers(start, min(start + 8, len(good))))
    return good[:start] + draw(st.binary(max_size=8)) + good[end:]


@pytest.mark.parametrize("parser", PARSERS)
@given(st.binary() | LINES | spoilt())
@settings(deadline=None)
def test_any_bytes_are_understood_or_refused(parser: Callable[[bytes], object], data: bytes) -> None:
    with contextlib.suppress(RempartError):
        parser(data)
