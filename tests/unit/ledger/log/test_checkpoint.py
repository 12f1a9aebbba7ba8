"""`rempart.ledger.log.checkpoint`: notes and verifier keys as C2SP signed-note and tlog-checkpoint have them."""

from __future__ import annotations

import base64
from hashlib import sha256

import pytest

from rempart import limits
from rempart.errors import LedgerCorrupt
from rempart.ledger.log.checkpoint import (
    Checkpoint,
    Signer,
    Verifier,
    check_name,
    decode_base64,
    decode_vkey,
    parse_note,
    read_note,
    read_signatures,
    signed_by,
    with_signatures,
)
from rempart.ledger.log.merkle import EMPTY_ROOT

NAME = "rempart.test/log"
SIGNER = Signer(NAME, bytes(32))
HEAD = Checkpoint(NAME, 7, bytes(range(32)))
NOTE = SIGNER.sign(HEAD)

# The example of golang.org/x/mod/sumdb/note, from whose format signed-note was taken.
NEUMANN_KEY = "AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
NEUMANN = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"


def note(text: str, *signatures: str) -> bytes:
    return (text + "\n" + "".join(f"{line}\n" for line in signatures)).encode()


def signature_line(signer: Signer, text: str) -> str:
    key = signer._key
    return f"— {signer.verifier.name} {base64.b64encode(signer.verifier.key_id + key.sign(text.encode())).decode()}"


def test_a_known_private_key_gives_the_known_verifier_key() -> None:
    signer = Signer("PeterNeumann", base64.b64decode(NEUMANN_KEY)[1:])
    assert signer.verifier.vkey == NEUMANN


@pytest.mark.parametrize("vkey", [NEUMANN, GO])
def test_known_verifier_keys_are_read_and_written_back(vkey: str) -> None:
    verifier = Verifier.from_vkey(f"{vkey}\n")
    assert verifier.vkey == vkey
    assert verifier.name == vkey.split("+")[0]
    assert verifier.key_id.hex() == vkey.split("+")[1]


def test_the_key_id_is_of_name_type_and_key() -> None:
    public = base64.b64decode(SIGNER.verifier.vkey.split("+", 2)[2])[1:]
    assert SIGNER.verifier.key_id == sha256(b"rempart.test/log\n\x01" + public).digest()[:4]


def test_the_text_of_a_checkpoint() -> None:
    empty = Checkpoint(NAME, 0, EMPTY_ROOT)
    assert empty.text() == b"rempart.test/log\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n"


def test_a_signed_note_is_text_blank_line_and_signature() -> None:
    text, blank, line = NOTE.rpartition(b"\n\n")
    assert text + b"\n" == HEAD.text()
    assert blank
    assert line.startswith("— rempart.test/log ".encode())
    assert line.endswith(b"\n")
    assert len(base64.b64decode(line.split(b" ")[2])) == 4 + 64


def test_what_was_signed_opens() -> None:
    assert SIGNER.verifier.open(NOTE) == HEAD
    assert Verifier.from_vkey(SIGNER.verifier.vkey).open(NOTE) == HEAD
    assert parse_note(NOTE) == (HEAD.text(), HEAD)


def test_other_signatures_and_extension_lines_may_stand_there() -> None:
    text = HEAD.text().decode() + "extension: kept\n"
    witness = Signer("witness.example/w", bytes(31) + b"\x01")
    signed = note(text, signature_line(witness, text), "— cosigner AAAAAAAA", signature_line(SIGNER, text))
    assert SIGNER.verifier.open(signed) == HEAD
    assert witness.verifier.open(signed) == HEAD


def test_the_same_name_under_another_key_is_no_signature_of_this_one() -> None:
    other = Signer(NAME, bytes(31) + b"\x01")
    with pytest.raises(LedgerCorrupt, match="not signed by"):
        other.verifier.open(NOTE)
    with pytest.raises(LedgerCorrupt, match="not signed by"):
        Signer("another.test/log", bytes(32)).verifier.open(NOTE)


@pytest.mark.parametrize("at", range(0, len(HEAD.text()), 7))
def test_any_other_text_is_refused(at: int) -> None:
    changed = bytearray(NOTE)
    changed[at] ^= 1
    with pytest.raises(LedgerCorrupt):
        SIGNER.verifier.open(bytes(changed))


def test_a_signature_of_another_length_is_refused() -> None:
    for cut in (b"", bytes(3), bytes(63), bytes(65)):
        line = f"— {NAME} {base64.b64encode(SIGNER.verifier.key_id + cut).decode()}"
        with pytest.raises(LedgerCorrupt):
            SIGNER.verifier.open(note(HEAD.text().decode(), line))


@pytest.mark.parametrize(
    "line",
    ["", "—", f"- {NAME} AAAA", f"— {NAME}", f"— {NAME} !", f"— {NAME} AAAA more", f"—  {NAME} AAAA", f"— {NAME} AAA"],
)
def test_a_line_that_is_no_signature_spoils_the_note(line: str) -> None:
    text = HEAD.text().decode()
    with pytest.raises(LedgerCorrupt):
        SIGNER.verifier.open(note(text, line, signature_line(SIGNER, text)))


def test_only_so_many_signatures_are_looked_at() -> None:
    text = HEAD.text().decode()
    with pytest.raises(LedgerCorrupt):
        SIGNER.verifier.open(note(text, *["— other AAAAAAAA"] * 64, signature_line(SIGNER, text)))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        f"{NAME}\n",
        f"{NAME}\n7\n",
        f"\n7\n{base64.b64encode(bytes(32)).decode()}\n",
        f"{NAME}\n07\n{base64.b64encode(bytes(32)).decode()}\n",
        f"{NAME}\n-7\n{base64.b64encode(bytes(32)).decode()}\n",
        f"{NAME}\n+7\n{base64.b64encode(bytes(32)).decode()}\n",
        f"{NAME}\n7 \n{base64.b64encode(bytes(32)).decode()}\n",
        f"{NAME}\n٧\n{base64.b64encode(bytes(32)).decode()}\n",
        f"{NAME}\n{'9' * 20}\n{base64.b64encode(bytes(32)).decode()}\n",
        f"{NAME}\n7\n{base64.b64encode(bytes(31)).decode()}\n",
        f"{NAME}\n7\n{base64.b64encode(bytes(33)).decode()}\n",
        f"{NAME}\n7\nnot base64\n",
        f"{NAME}\n7\né\n",
    ],
)
def test_a_text_that_is_no_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(LedgerCorrupt):
        parse_note(note(text, "— other AAAAAAAA"))


@pytest.mark.parametrize("data", [b"", b"\n", b"\n\n", HEAD.text(), b"\xff\n7\nx\n\n"])
def test_what_is_no_note_is_refused(data: bytes) -> None:
    with pytest.raises(LedgerCorrupt):
        SIGNER.verifier.open(data)


@pytest.mark.parametrize(
    "vkey",
    [
        "",
        "+",
        "++",
        "PeterNeumann",
        "PeterNeumann+c74f20a3",
        NEUMANN.replace("c74f20a3", "c74f20a4"),
        NEUMANN.replace("c74f20a3", ""),
        NEUMANN.replace("PeterNeumann", "Peter Neumann"),
        NEUMANN.replace("PeterNeumann", "AlfredNeumann"),
        NEUMANN.replace("ARpc", "Ahpc"),
        NEUMANN.replace("+ARpc", "+BRpc"),
        NEUMANN[:-4],
        NEUMANN + "AAAA",
        NEUMANN + "!",
        NEUMANN.replace("ARpc", "é"),
    ],
)
def test_a_damaged_verifier_key_is_refused(vkey: str) -> None:
    with pytest.raises(LedgerCorrupt) as caught:
        Verifier.from_vkey(vkey)
    assert caught.value.hint


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\tb", "a\nb", "a\u2028b", "a\x00b", "a\x7fb", "a" * 256])
def test_names_that_a_log_may_not_have(name: str) -> None:
    with pytest.raises(ValueError, match="an origin has"):
        check_name(name)
    with pytest.raises(ValueError, match="an origin has"):
        Signer(name, bytes(32))


@pytest.mark.parametrize("name", ["a", "llm.hospital.example/log", "ü", "a" * 255])
def test_names_that_a_log_may_have(name: str) -> None:
    check_name(name)
    assert Verifier.from_vkey(Signer(name, bytes(32)).verifier.vkey).name == name


# Notes with several signatures.

OTHERS = [Signer(f"witness.example/{number}", bytes(31) + bytes([number + 1])) for number in range(20)]


def test_signatures_are_added_at_the_end_and_what_stood_there_is_kept() -> None:
    lines = [other.line(HEAD.text()) for other in OTHERS]
    whole = with_signatures(with_signatures(NOTE, lines[:5]), lines[5:])
    assert whole == NOTE + b"".join(lines)
    assert parse_note(whole) == parse_note(NOTE)
    for signer in (SIGNER, *OTHERS):
        assert signer.verifier.open(whole) == HEAD


def test_several_lines_may_be_added_as_one_answer() -> None:
    lines = [other.line(HEAD.text()) for other in OTHERS[:3]]
    assert with_signatures(NOTE, [b"".join(lines)]) == with_signatures(NOTE, lines) == NOTE + b"".join(lines)


def test_a_key_that_signs_anew_takes_its_old_lines_place() -> None:
    line = OTHERS[0].line(HEAD.text())
    twice = with_signatures(with_signatures(NOTE, [line]), [SIGNER.line(HEAD.text()), line])
    assert twice == with_signatures(NOTE, [SIGNER.line(HEAD.text()), line])
    assert len(read_note(twice).signatures) == 2


def test_a_note_takes_as_many_signatures_as_its_bound_and_no_more() -> None:
    lines = [f"— other/{number} AAAAAAAA\n".encode() for number in range(limits.note_signatures_max)]
    assert len(read_note(with_signatures(NOTE, lines[1:])).signatures) == limits.note_signatures_max >= 16
    with pytest.raises(LedgerCorrupt, match="more than 64 signatures"):
        with_signatures(NOTE, lines)


@pytest.mark.parametrize("line", [b"", b"\n", b"nonsense\n", NOTE, OTHERS[0].line(HEAD.text())[:-1]])
def test_what_is_no_signature_line_is_not_added(line: bytes) -> None:
    with pytest.raises(LedgerCorrupt):
        with_signatures(NOTE, [line])


def test_a_log_that_changes_its_key_signs_under_both_for_a_while() -> None:
    new = Signer(NAME, bytes(31) + b"\x07")
    both = with_signatures(SIGNER.sign(HEAD), [new.line(HEAD.text())])
    assert SIGNER.verifier.open(both) == new.verifier.open(both) == HEAD
    with pytest.raises(LedgerCorrupt, match="not signed by"):
        new.verifier.open(SIGNER.sign(HEAD))


def test_every_line_of_a_known_key_has_to_be_valid() -> None:
    wrong = SIGNER.line(Checkpoint(NAME, 8, HEAD.root).text())
    for note_ in (NOTE + wrong, HEAD.text() + b"\n" + wrong + SIGNER.line(HEAD.text())):
        with pytest.raises(LedgerCorrupt, match="not valid"):
            SIGNER.verifier.open(note_)
        assert signed_by(OTHERS[0].verifier, read_note(note_)) == []


def test_the_last_empty_line_ends_the_text() -> None:
    line = SIGNER.line(b"one\n\ntwo\n")
    read = read_note(b"one\n\ntwo\n\n" + line)
    assert read.text == b"one\n\ntwo\n"
    assert signed_by(SIGNER.verifier, read) == [0]
    with pytest.raises(LedgerCorrupt):
        SIGNER.verifier.open(read.encode())  # a note, but no checkpoint


def test_an_empty_line_is_no_extension_line() -> None:
    text = HEAD.text() + b"kept\n\nlost\n"
    with pytest.raises(LedgerCorrupt):
        SIGNER.verifier.open(text + b"\n" + SIGNER.line(text))


@pytest.mark.parametrize("byte", [b"\x00", b"\x01", b"\t", b"\r", b"\x1f", b"\xff", b"\xed\xa0\x80"])
@pytest.mark.parametrize("place", [b"extension", b"\xe2\x80\x94"])
def test_control_characters_and_what_is_not_utf_8_spoil_a_note(byte: bytes, place: bytes) -> None:
    text = HEAD.text() + b"extension\n"
    whole = text + b"\n" + SIGNER.line(text)
    assert SIGNER.verifier.open(whole) == HEAD
    with pytest.raises(LedgerCorrupt):
        read_note(whole.replace(place, place + byte))


def test_a_note_may_have_only_so_many_bytes() -> None:
    text = HEAD.text() + b"x" * limits.note_bytes_max + b"\n"
    with pytest.raises(LedgerCorrupt, match="more than"):
        read_note(text + b"\n" + SIGNER.line(text))


def test_an_empty_tree_has_the_root_of_one() -> None:
    assert SIGNER.verifier.open(SIGNER.sign(Checkpoint(NAME, 0, EMPTY_ROOT))).size == 0
    with pytest.raises(LedgerCorrupt, match="empty tree"):
        SIGNER.verifier.open(SIGNER.sign(Checkpoint(NAME, 0, bytes(32))))


@pytest.mark.parametrize("encoded", [b"AB==", b"AAA", b"AA=A", b"AAAA=", b"AAAA\n", b" AAAA", b"AA-_", b"A", b"===="])
def test_base64_has_one_form(encoded: bytes) -> None:
    with pytest.raises(ValueError, match="base64"):
        decode_base64(encoded)
    with pytest.raises(LedgerCorrupt):
        read_signatures("— other ".encode() + b"AAAAAAAA" + encoded + b"\n")


def test_a_signature_has_more_than_the_id_of_its_key() -> None:
    with pytest.raises(LedgerCorrupt):
        read_signatures("— other AAAAAA==\n".encode())
    assert read_signatures("— other AAAAAAA=\n".encode())[0].value == b"\0"


@pytest.mark.parametrize("name", ["a+b", "a\u00a0b", "a\u2028b", "\u3000"])
def test_the_name_of_a_signature_has_no_spaces_of_any_kind(name: str) -> None:
    with pytest.raises(LedgerCorrupt):
        read_signatures(f"— {name} AAAAAAAA\n".encode())


def test_a_verifier_key_of_any_type_is_taken_apart() -> None:
    assert decode_vkey(NEUMANN)[:2] == ("PeterNeumann", 1)
    assert len(decode_vkey(NEUMANN)[2]) == 32
