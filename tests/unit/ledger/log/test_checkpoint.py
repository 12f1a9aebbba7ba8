"""`rempart.ledger.log.checkpoint`: notes and verifier keys as C2SP signed-note and tlog-checkpoint have them."""

from __future__ import annotations

import base64
from hashlib import sha256

import pytest

from rempart.errors import LedgerCorrupt
from rempart.ledger.log.checkpoint import Checkpoint, Signer, Verifier, check_name, parse_note
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
