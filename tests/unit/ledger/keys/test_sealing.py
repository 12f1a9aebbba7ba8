"""`rempart.ledger.keys.sealing` and `pkcs11_sealing`: a root comes back from what sealed it, and from nothing else."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rempart import limits
from rempart.errors import KeystoreError
from rempart.ledger.keys.keystore import Keystore
from rempart.ledger.keys.pkcs11_sealing import LABEL, Pkcs11Sealing
from rempart.ledger.keys.sealing import (
    SCRYPT_N,
    FileSealing,
    PassphraseSealing,
    Sealing,
    Sealings,
    kind_of,
    passphrase_from_descriptor,
    passphrase_from_file,
    passphrase_from_prompt,
)

if TYPE_CHECKING:
    from tests.conftest import Token

ROOT = bytes(range(32))
WORDS = "correct horse battery staple"


def quick(passphrase: str = WORDS) -> PassphraseSealing:
    return PassphraseSealing(passphrase, cost=2)


def in_token(token: Token) -> Pkcs11Sealing:
    return Pkcs11Sealing(token.library, token.label, lambda: token.pin)


@pytest.fixture(params=["file", "passphrase", "pkcs11"])
def sealing(request: pytest.FixtureRequest) -> Sealing:
    if request.param == "pkcs11":
        return in_token(request.getfixturevalue("token"))
    return FileSealing() if request.param == "file" else quick()


def test_a_root_comes_back(sealing: Sealing) -> None:
    sealed = sealing.seal(ROOT)
    assert Sealings(sealing).unseal(sealed) == ROOT
    assert kind_of(sealed) == sealing.kind
    assert len(sealed) <= limits.root_bytes_max


def test_what_seals_shows_nothing_of_the_root_and_is_one_line(sealing: Sealing) -> None:
    if sealing.kind == "file":
        assert sealing.seal(ROOT) == ROOT
        return
    first, second = sealing.seal(ROOT), sealing.seal(ROOT)
    assert first != second
    assert first.count(b"\n") == 1
    assert first.endswith(b"}\n")
    for secret in (ROOT, ROOT.hex().encode(), WORDS.encode()):
        assert secret not in first


@given(st.binary(max_size=200) | st.dictionaries(st.text(), st.text() | st.integers()).map(msgspec.json.encode))
def test_any_bytes_are_a_root_or_a_keystore_error(data: bytes) -> None:
    sealings = Sealings(FileSealing(), quick())
    if kind_of(data) in ("", "file", "passphrase"):
        sealings.forget(data)
    if len(data) == 32:
        assert sealings.unseal(data) == data
    else:
        with pytest.raises(KeystoreError):
            sealings.unseal(data)


def test_a_way_that_is_not_configured_is_named() -> None:
    with pytest.raises(KeystoreError, match="sealed by passphrase, which is not configured") as caught:
        Sealings(FileSealing()).unseal(quick().seal(ROOT))
    assert "Configure passphrase" in caught.value.hint
    with pytest.raises(KeystoreError, match="pkcs11"):
        Sealings(FileSealing()).forget(b'{"kind":"pkcs11"}')


def test_another_passphrase_opens_nothing() -> None:
    with pytest.raises(KeystoreError, match="does not open under this passphrase"):
        quick("another one of twelve").unseal(quick().seal(ROOT))


def test_a_passphrase_is_the_same_however_its_letters_are_composed() -> None:
    sealed = quick("Fran\u00e7ois et Zo\u00eb").seal(ROOT)
    assert quick("Franc\u0327ois et Zoe\u0308").unseal(sealed) == ROOT


def test_a_short_passphrase_is_refused() -> None:
    with pytest.raises(KeystoreError, match="too short"):
        PassphraseSealing("x" * (limits.passphrase_chars_min - 1))


def test_new_roots_cost_what_is_stated() -> None:
    line = msgspec.json.decode(PassphraseSealing(WORDS).seal(ROOT))
    assert (line["kdf"], line["n"], line["r"], line["p"]) == ("scrypt", SCRYPT_N, 8, 1) == ("scrypt", 131_072, 8, 1)
    assert PassphraseSealing(WORDS, cost=2).unseal(msgspec.json.encode(line)) == ROOT


@pytest.mark.parametrize(
    "change",
    [
        {"n": 4},
        {"n": 3},
        {"n": 0},
        {"n": limits.scrypt_cost_max * 2},
        {"r": 1},
        {"p": 1_000_000},
        {"kdf": "pbkdf2"},
        {"salt": "00" * 16},
        {"salt": "no hex"},
        {"nonce": "00" * 12},
        {"nonce": ""},
        {"sealed": "00" * 48},
        {"sealed": 7},
    ],
)
def test_a_line_that_was_changed_opens_nothing(change: dict[str, object]) -> None:
    line = msgspec.json.decode(quick().seal(ROOT))
    with pytest.raises(KeystoreError, match=r"root\.key"):
        quick().unseal(msgspec.json.encode({**line, **change}))


def test_a_passphrase_is_read_from_a_file_of_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "passphrase"
    path.write_text(f"{WORDS}\r\nnot this\n")
    path.chmod(0o600)
    assert passphrase_from_file(path) == WORDS
    path.chmod(0o640)
    with pytest.raises(KeystoreError, match="read by others"):
        passphrase_from_file(path)
    with pytest.raises(KeystoreError, match="cannot be read"):
        passphrase_from_file(tmp_path / "nothing")


@pytest.mark.parametrize(("data", "said"), [(b"x" * 2_000, "too long"), (b"\xff\xfe" * 10, "no UTF-8")])
def test_what_is_no_passphrase_is_told(tmp_path: Path, data: bytes, said: str) -> None:
    path = tmp_path / "passphrase"
    path.write_bytes(data)
    path.chmod(0o600)
    with pytest.raises(KeystoreError, match=said):
        passphrase_from_file(path)


def test_a_passphrase_is_read_from_a_descriptor_which_is_closed() -> None:
    reading, writing = os.pipe()
    os.write(writing, f"{WORDS}\n".encode())
    os.close(writing)
    assert passphrase_from_descriptor(reading) == WORDS
    with pytest.raises(KeystoreError, match="cannot be read"):
        passphrase_from_descriptor(reading)


def test_a_new_passphrase_is_asked_for_twice() -> None:
    answers = iter([WORDS, WORDS, WORDS, "a slip of the finger"])
    assert passphrase_from_prompt(lambda _: next(answers), new=True) == WORDS
    with pytest.raises(KeystoreError, match="not the same"):
        passphrase_from_prompt(lambda _: next(answers), new=True)


def test_each_root_has_a_token_key_of_its_own_that_cannot_leave(token: Token) -> None:
    import pkcs11

    sealing = in_token(token)
    first, second = sealing.seal(ROOT), sealing.seal(ROOT)
    ids = [bytes.fromhex(msgspec.json.decode(sealed)["key"]) for sealed in (first, second)]
    assert ids[0] != ids[1]
    with pkcs11.lib(str(token.library)).get_token(token_label=token.label).open(user_pin=token.pin) as session:
        for id_ in ids:
            key = session.get_key(pkcs11.ObjectClass.SECRET_KEY, id=id_)
            assert (key[pkcs11.Attribute.SENSITIVE], key[pkcs11.Attribute.EXTRACTABLE]) == (True, False)
            assert key[pkcs11.Attribute.LABEL] == LABEL


def test_a_root_that_the_token_forgot_opens_no_more_and_others_do(token: Token) -> None:
    sealing = in_token(token)
    first, second = sealing.seal(ROOT), sealing.seal(ROOT)
    for _ in range(2):
        sealing.forget(first)
    with pytest.raises(KeystoreError, match="was destroyed"):
        sealing.unseal(first)
    assert sealing.unseal(second) == ROOT


def test_what_is_wrong_with_the_token_is_told(token: Token, tmp_path: Path) -> None:
    for sealing in (
        Pkcs11Sealing(tmp_path / "none.so", token.label, lambda: token.pin),
        Pkcs11Sealing(token.library, "no such token", lambda: token.pin),
        Pkcs11Sealing(token.library, token.label, lambda: "not the pin"),
    ):
        with pytest.raises(KeystoreError, match="The token") as caught:
            sealing.seal(ROOT)
        assert token.pin not in caught.value.message
    changed = msgspec.json.decode(in_token(token).seal(ROOT)) | {"sealed": "00" * 48}
    with pytest.raises(KeystoreError, match="The token"):
        in_token(token).unseal(msgspec.json.encode(changed))
    with pytest.raises(KeystoreError, match="damaged"):
        in_token(token).unseal(b'{"kind":"pkcs11","key":"zz"}')


def test_a_keystore_is_converted_from_any_way_to_any_other(tmp_path: Path, token: Token) -> None:
    ways: list[Sealing] = [FileSealing(), quick(), in_token(token), quick("another one of twelve"), FileSealing()]
    directory = tmp_path / "keys"
    keystore = Keystore.create(directory)
    keystore.put({("kind", str(number)): b"%d" % number for number in range(300)})
    roots = [(directory / "root.key").read_bytes()]
    for before, way in pairwise(ways):
        keystore.reseal(Sealings(way))
        roots.append((directory / "root.key").read_bytes())
        assert kind_of(roots[-1]) == way.kind
        keystore.put({("kind", "last"): way.kind.encode()})
        keystore.close()
        with pytest.raises(KeystoreError):
            Keystore.open(directory, sealings=Sealings(before))
        keystore = Keystore.open(directory, sealings=Sealings(way))
        assert len(list(keystore.scan("kind"))) == 301
    keystore.close()
    assert len(set(roots)) == len(ways)
    for old in roots[:-1]:
        (directory / "root.key").write_bytes(old)
        with pytest.raises(KeystoreError):
            Keystore.open(directory, sealings=Sealings(*ways))
