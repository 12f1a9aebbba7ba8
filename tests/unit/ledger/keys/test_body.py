"""`rempart.ledger.keys.body`: keys as RFC 5869 has them, and bodies that open under nothing else."""

from __future__ import annotations

import hmac
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from rempart.errors import LedgerCorrupt
from rempart.ledger.keys import body

EXCHANGE = bytes(range(16))
KEY = sha256(b"body key").digest()
RANDOM = sha256(b"nonce").digest()[:12] + sha256(b"salt").digest()
CONTENT = '{"request":"What is said here is between us. — Ünlü"}'.encode()


def sealed() -> body.Sealed:
    return body.seal(KEY, EXCHANGE, body.REQUEST, CONTENT, RANDOM)


def test_the_first_vector_of_rfc_5869() -> None:
    """Appendix A.1: its first 32 bytes, as `expand` gives them."""
    prk = body.extract(bytes(range(13)), b"\x0b" * 11, b"\x0b" * 11, [])
    assert prk.hex() == "077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5"
    assert body.expand(prk, bytes(range(0xF0, 0xFA))).hex() == (
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf"
    )


@pytest.mark.parametrize("label", [body.REQUEST, body.RESPONSE, body.PIECES])
@pytest.mark.parametrize("subjects", [0, 1, 3])
def test_keys_are_hkdf_of_record_bucket_and_subject_keys(label: bytes, subjects: int) -> None:
    record, bucket, *keys = (sha256(bytes([number])).digest() for number in range(2 + subjects))
    expected = HKDF(SHA256(), 32, EXCHANGE, label).derive(b"".join([record, bucket, *keys]))
    assert body.expand(body.extract(EXCHANGE, record, bucket, keys), label) == expected


def test_labels_and_exchanges_give_keys_of_their_own() -> None:
    roots = [body.extract(exchange, bytes(32), bytes(32), []) for exchange in (EXCHANGE, bytes(16))]
    labels = (body.REQUEST, body.RESPONSE, body.PIECES)
    assert len({body.expand(root, label) for root in roots for label in labels}) == 6


def test_a_body_is_nonce_and_aes_gcm_of_salt_and_content() -> None:
    found = sealed()
    assert found.body[:12] == RANDOM[:12]
    assert len(found.body) == 12 + 32 + len(CONTENT) + 16
    assert AESGCM(KEY).decrypt(found.body[:12], found.body[12:], EXCHANGE + body.REQUEST) == RANDOM[12:] + CONTENT


def test_what_the_entry_says_of_a_body() -> None:
    found = sealed()
    assert found.digest == sha256(found.body).hexdigest()
    assert found.commitment == hmac.digest(RANDOM[12:], CONTENT, "sha256").hex()


def test_a_body_shows_nothing_of_its_content() -> None:
    shown = sealed().body
    assert not any(CONTENT[at : at + 4] in shown for at in range(len(CONTENT) - 3))
    assert RANDOM[12:] not in shown


@pytest.mark.parametrize("content", [b"", b"x", CONTENT, bytes(100_000)])
def test_what_was_sealed_opens(content: bytes) -> None:
    found = body.seal(KEY, EXCHANGE, body.RESPONSE, content, RANDOM)
    assert body.unseal(KEY, EXCHANGE, body.RESPONSE, found.body, found.commitment).content == content


def test_another_key_exchange_or_label_does_not_open_it() -> None:
    found = sealed()
    for key, exchange, label in (
        (bytes(32), EXCHANGE, body.REQUEST),
        (KEY, bytes(16), body.REQUEST),
        (KEY, EXCHANGE, body.RESPONSE),
    ):
        with pytest.raises(LedgerCorrupt, match="does not open"):
            body.unseal(key, exchange, label, found.body, found.commitment)


@pytest.mark.parametrize("at", [0, 11, 12, 43, 44, -17, -16, -1])
def test_a_changed_bit_is_found(at: int) -> None:
    found = sealed()
    changed = bytearray(found.body)
    changed[at] ^= 1
    with pytest.raises(LedgerCorrupt):
        body.unseal(KEY, EXCHANGE, body.REQUEST, bytes(changed), found.commitment)


@pytest.mark.parametrize("length", [0, 1, 7, 8, 12, 27, 28, 60, 100])
def test_a_body_cut_short_is_refused(length: int) -> None:
    found = sealed()
    with pytest.raises(LedgerCorrupt):
        body.unseal(KEY, EXCHANGE, body.REQUEST, found.body[:length], found.commitment)


@pytest.mark.parametrize("commitment", ["", "00" * 32, "no hex", "ü"])
def test_a_body_that_its_entry_does_not_commit_to_is_refused(commitment: str) -> None:
    with pytest.raises(LedgerCorrupt, match="commits"):
        body.unseal(KEY, EXCHANGE, body.REQUEST, sealed().body, commitment)


def test_pieces_open_in_their_place_alone() -> None:
    cipher = body.PieceCipher(KEY, EXCHANGE)
    pieces = [cipher.seal(sequence, b"word") for sequence in range(3)]
    assert len(set(pieces)) == 3
    assert [cipher.unseal(sequence, piece) for sequence, piece in enumerate(pieces)] == [b"word"] * 3
    with pytest.raises(LedgerCorrupt):
        cipher.unseal(1, pieces[0])
    with pytest.raises(LedgerCorrupt):
        body.PieceCipher(KEY, bytes(16)).unseal(0, pieces[0])
    with pytest.raises(LedgerCorrupt):
        body.PieceCipher(bytes(32), EXCHANGE).unseal(0, pieces[0])


@pytest.mark.parametrize("length", [0, 1, 15, 16, 19])
def test_a_piece_cut_short_is_refused(length: int) -> None:
    cipher = body.PieceCipher(KEY, EXCHANGE)
    with pytest.raises(LedgerCorrupt):
        cipher.unseal(0, cipher.seal(0, b"word")[:length])


def test_the_nonce_of_a_piece_is_its_number() -> None:
    piece = body.PieceCipher(KEY, EXCHANGE).seal(258, b"word")
    assert AESGCM(KEY).decrypt(bytes(10) + b"\x01\x02", piece, EXCHANGE) == b"word"
