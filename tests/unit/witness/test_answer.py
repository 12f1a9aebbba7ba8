"""`rempart.witness.answer`: transcripts of C2SP tlog-witness, every status."""

from __future__ import annotations

import base64
from collections.abc import Callable

import pytest

from rempart.errors import LedgerCorrupt
from rempart.ledger.log.checkpoint import Signature, Signer, read_note, read_signatures, signed_by, with_signatures
from rempart.ledger.log.cosignature import ML_DSA_44, Cosigner
from rempart.ledger.log.submission import Submission, encode, parse
from rempart.testing.trees import Trees
from rempart.witness.answer import Answer, Known, answer

NOW = 1_800_000_000
LEAVES = [b"leaf %d" % number for number in range(20)]
OTHERS = [*LEAVES[:3], b"another", *LEAVES[4:]]
LOG = Trees("log.example/one", bytes(32))
STRANGER = Trees("log.example/two", bytes(32))
IMPOSTOR = Trees("log.example/one", b"\1" * 32)
COSIGNERS = [Cosigner("witness.example/w", b"\2" * 32), Cosigner("witness.example/w", b"\3" * 32, ML_DSA_44)]


def known(leaves: list[bytes] = LEAVES[:8]) -> Known:
    latest = LOG.checkpoint(leaves)
    return Known((LOG.signer.verifier,), latest.size, latest.root)


def ask(body: bytes, of: Known | None) -> Answer:
    return answer(parse(body), of, COSIGNERS, NOW)


def spoiled(note: bytes) -> bytes:
    """The log's own line, over another text."""
    signature = read_note(note).signatures[0]
    bad = Signature(signature.name, signature.key_id, bytes(64))
    return b"".join([note[: note.rindex(b"\n\n") + 2], bad.line()])


def beside(note: bytes, signer: Signer) -> bytes:
    text = read_note(note).text
    return with_signatures(note, [signer.line(text)])


def submission(old: int, note: bytes, proof: tuple[bytes, ...] = ()) -> bytes:
    return encode(Submission(old, proof, note))


PROOF = LOG.proof(8, LEAVES)
FORKED = LOG.proof(8, OTHERS)

TRANSCRIPTS: list[tuple[str, bytes, Known | None, int, bytes]] = [
    ("an unknown origin", STRANGER.submission(0, LEAVES), None, 404, b""),
    ("a key that is not trusted", IMPOSTOR.submission(8, LEAVES), known(), 403, b""),
    ("a trusted key's line over another text", submission(8, spoiled(LOG.note(LEAVES)), PROOF), known(), 403, b""),
    ("an old size above the checkpoint's", submission(21, LOG.note(LEAVES)), known(), 400, b""),
    ("that even when it is the latest", submission(8, LOG.note(LEAVES[:5])), known(), 400, b""),
    ("an old size below the latest", LOG.submission(5, LEAVES), known(), 409, b"8\n"),
    ("an old size above the latest", LOG.submission(9, LEAVES), known(), 409, b"8\n"),
    ("a first one where something is known", LOG.submission(0, LEAVES), known(), 409, b"8\n"),
    ("an old size where nothing is known", LOG.submission(8, LEAVES), Known((LOG.signer.verifier,)), 409, b"0\n"),
    ("the same size and another root", LOG.submission(8, OTHERS[:8]), known(), 409, b"8\n"),
    ("no proof", submission(8, LOG.note(LEAVES)), known(), 422, b""),
    ("a proof with a hash too many", submission(8, LOG.note(LEAVES), (*PROOF, PROOF[0])), known(), 422, b""),
    ("a proof of another tree", submission(8, LOG.note(OTHERS), FORKED), known(), 422, b""),
    ("a proof where there is none to give", submission(0, LOG.note(LEAVES), PROOF), Known(known().keys), 422, b""),
    ("a proof from the same size", submission(8, LOG.note(LEAVES[:8]), PROOF), known(), 422, b""),
]


@pytest.mark.parametrize(("what", "body", "of", "status", "told"), TRANSCRIPTS, ids=[one[0] for one in TRANSCRIPTS])
def test_what_is_refused(what: str, body: bytes, of: Known | None, status: int, told: bytes) -> None:
    found = ask(body, of)
    assert (found.status, found.remember) == (status, b"")
    if status == 409:
        assert (found.body, found.content_type) == (told, b"text/x.tlog.size")
    assert b"\xe2\x80\x94" not in found.body


@pytest.mark.parametrize(("old", "size"), [(0, 1), (0, 20), (8, 9), (8, 16), (8, 20)], ids=lambda size: str(size))
def test_a_tree_that_grew_is_cosigned_by_every_key_and_remembered(old: int, size: int) -> None:
    before = known(LEAVES[:old]) if old else Known((LOG.signer.verifier,))
    found = ask(LOG.submission(old, LEAVES[:size]), before)
    assert found.status == 200
    note = read_note(with_signatures(LOG.note(LEAVES[:size]), [found.body]))
    assert [signed_by(one.verifier, note) for one in COSIGNERS] == [[NOW], [NOW]]
    kept = read_note(found.remember)
    assert [signed_by(one.verifier, kept) for one in COSIGNERS] == [[NOW], [NOW]]
    assert signed_by(LOG.signer.verifier, kept)
    assert kept.text == note.text


def test_what_is_cosigned_already_is_cosigned_again_and_changes_nothing() -> None:
    found = ask(LOG.submission(8, LEAVES[:8]), known())
    assert (found.status, found.remember) == (200, b"")
    assert len(read_signatures(found.body)) == 2


def test_the_empty_tree_is_cosigned() -> None:
    found = ask(LOG.submission(0, []), Known((LOG.signer.verifier,)))
    assert (found.status, found.remember) == (200, b"")


def test_lines_of_unknown_keys_are_ignored_and_not_kept() -> None:
    note = beside(LOG.note(LEAVES), Signer("somebody.example/else", b"\4" * 32))
    note = beside(note, IMPOSTOR.signer)
    found = ask(submission(8, note, PROOF), known())
    assert found.status == 200
    names = [(one.name, one.key_id) for one in read_note(found.remember).signatures]
    assert ("somebody.example/else", read_note(note).signatures[1].key_id) not in names
    assert len(names) == 3


def test_one_of_several_keys_of_a_log_is_enough() -> None:
    keys = (IMPOSTOR.signer.verifier, LOG.signer.verifier)
    before = known()
    assert ask(LOG.submission(8, LEAVES), Known(keys, before.size, before.root)).status == 200


def test_extension_lines_are_cosigned_by_the_key_that_covers_them() -> None:
    text = LOG.checkpoint(LEAVES).text() + b"extension\n"
    note = text + b"\n" + LOG.signer.line(text)
    found = ask(submission(8, note, PROOF), known())
    assert found.status == 200
    (line,) = read_signatures(found.body)
    assert COSIGNERS[0].verifier.verify(text, line.value) == NOW


GOOD = LOG.submission(8, LEAVES)
DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda body: b"",
    "no old line": lambda body: body.partition(b"\n")[2],
    "a leading zero": lambda body: body.replace(b"old 8", b"old 08"),
    "a sign": lambda body: body.replace(b"old 8", b"old +8"),
    "another word": lambda body: body.replace(b"old 8", b"Old 8"),
    "two spaces": lambda body: body.replace(b"old 8", b"old  8"),
    "a size without end": lambda body: body.replace(b"old 8", b"old " + b"9" * 40),
    "a carriage return": lambda body: body.replace(b"old 8\n", b"old 8\r\n"),
    "no empty line": lambda body: body.replace(b"\n\n", b"\n"),
    "a short hash": lambda body: body.replace(b"\n\n", b"\n" + base64.b64encode(bytes(31)) + b"\n\n", 1),
    "no base64": lambda body: body.replace(b"\n\n", b"\n!!!!\n\n", 1),
    "64 hashes": lambda body: encode(Submission(8, (bytes(32),) * 64, LOG.note(LEAVES))),
    "no note": lambda body: body.partition(b"\n\n")[0] + b"\n\n",
    "no signature": lambda body: body[: body.rindex(b"\n\n") + 2],
    "a cut line": lambda body: body[:-1],
    "a control character": lambda body: body.replace(b"log.example/one\n20", b"log.example/\0ne\n20"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_cannot_be_read_is_refused(damage: str) -> None:
    assert parse(GOOD).old == 8
    with pytest.raises(LedgerCorrupt):
        parse(DAMAGES[damage](GOOD))


def test_63_hashes_can_be_read() -> None:
    assert len(parse(encode(Submission(8, (bytes(32),) * 63, LOG.note(LEAVES)))).proof) == 63
