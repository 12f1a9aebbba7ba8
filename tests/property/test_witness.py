"""A witness never cosigns two trees of which neither is a prefix of the other, whatever it is sent, in any order."""

from __future__ import annotations

import tempfile
from itertools import combinations
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from rempart.errors import LedgerCorrupt
from rempart.ledger.log.checkpoint import read_signatures
from rempart.ledger.log.policy import Log
from rempart.ledger.log.submission import Submission, encode, parse, parse_size
from rempart.testing.trees import Trees
from rempart.witness.opening import open_witness

LOG = Trees("log.example/one", bytes(32))
MAIN = [b"leaf %d" % number for number in range(12)]
# Histories that part from the first one at some entry.
HISTORIES = [MAIN, *([*MAIN[:at], b"fork %d" % at, *MAIN[at + 1 :]] for at in (0, 1, 5, 11))]

histories = st.sampled_from(HISTORIES)
sizes = st.integers(0, len(MAIN))


@st.composite
def submissions(draw: st.DrawFn) -> tuple[list[bytes], bytes]:
    """The leaves that a note signs, and a body whose proof may be that of another history or be spoiled."""
    leaves = draw(histories)[: draw(sizes)]
    old = draw(sizes)
    proven = draw(histories)[: len(leaves)] if draw(st.booleans()) else leaves
    proof = LOG.proof(min(old, len(proven)), proven)
    if draw(st.integers(0, 9)) == 0:
        proof = (*proof[1:], bytes(32))
    return leaves, encode(Submission(old, proof, LOG.note(leaves)))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(submissions(), st.just(None)), max_size=25))
def test_never_two_histories(sent: list[tuple[list[bytes], bytes] | None]) -> None:
    """None: the witness is restarted."""
    cosigned: list[list[bytes]] = []
    with tempfile.TemporaryDirectory() as folder:
        waiting = list(sent)
        while waiting:
            with open_witness(Path(folder), "witness.example/w", (Log(LOG.signer.verifier),)) as clerk:
                while waiting and (one := waiting.pop(0)) is not None:
                    leaves, body = one
                    found = clerk.add_checkpoint(body)
                    if found.status == 200:
                        assert len(read_signatures(found.body)) == 2
                        assert not cosigned or len(leaves) >= len(cosigned[-1])
                        cosigned.append(leaves)
                    elif found.status == 409:
                        assert parse_size(found.body) == (len(cosigned[-1]) if cosigned else 0)
    for first, second in combinations(cosigned, 2):
        assert second[: len(first)] == first


@given(st.integers(0, 2**62), st.lists(st.binary(min_size=32, max_size=32), max_size=63), histories)
def test_a_submission_is_read_as_it_was_written(old: int, proof: list[bytes], leaves: list[bytes]) -> None:
    submission = Submission(old, tuple(proof), LOG.note(leaves))
    assert parse(encode(submission)) == submission


@given(st.one_of(st.binary(), st.binary().map(lambda rest: b"old 0\n" + rest)))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    try:
        assert encode(parse(body)) == body
    except LedgerCorrupt:
        return
