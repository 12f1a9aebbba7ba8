"""`rempart.identity.apikey`: the text of a key says whether it is one of ours, and its secret shows nowhere else."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rempart.errors import Unauthenticated
from rempart.identity.apikey import ID_CHARS, SECRET_CHARS, ApiKey, parse

KEY = ApiKey("0123456789ab", "Secret-Part" + "x" * (SECRET_CHARS - 11))
TEXT = KEY.text()

ids = st.text("0123456789abcdef", min_size=ID_CHARS, max_size=ID_CHARS)
secrets = st.text(
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-", min_size=SECRET_CHARS, max_size=SECRET_CHARS
)


@given(ids, secrets)
def test_a_key_is_read_as_it_was_written(id_: str, secret: str) -> None:
    key = ApiKey(id_, secret)
    assert parse(key.text()) == key


def test_a_key_begins_with_what_scanners_look_for() -> None:
    assert TEXT.startswith("rp_0123456789ab_Secret-Part")
    assert len(TEXT) == len("rp") + 1 + ID_CHARS + 1 + SECRET_CHARS + 1 + 8


@pytest.mark.parametrize("position", [*range(3, 3 + ID_CHARS), 16, 16 + SECRET_CHARS - 1, len(TEXT) - 1])
def test_one_wrong_character_is_a_damaged_key(position: int) -> None:
    wrong = "0" if TEXT[position] != "0" else "1"
    with pytest.raises(Unauthenticated, match="damaged"):
        parse(TEXT[:position] + wrong + TEXT[position + 1 :])


def test_two_letters_that_changed_places_are_a_damaged_key() -> None:
    with pytest.raises(Unauthenticated, match="damaged"):
        parse(TEXT.replace("Secret", "Secert"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "rp_",
        "sk-proj-0123456789",
        TEXT[:-1],
        TEXT + "0",
        TEXT + "\n",
        " " + TEXT,
        TEXT.replace("rp_", "RP_"),
        TEXT.replace("0123456789ab", "0123456789AB"),
        TEXT.replace("Secret", "Secr\u00e9t"),
        TEXT.replace("0123456789ab", "\u0660123456789ab"),
        TEXT.replace("_", "-"),
    ],
)
def test_what_has_not_the_shape_of_a_key_is_none_of_ours(text: str) -> None:
    with pytest.raises(Unauthenticated, match="not an API key"):
        parse(text)


@given(st.text())
def test_any_text_is_a_key_or_unauthenticated(text: str) -> None:
    with pytest.raises(Unauthenticated):
        parse(text)


def test_errors_do_not_repeat_the_secret() -> None:
    with pytest.raises(Unauthenticated) as caught:
        parse(TEXT[:-1] + ("0" if TEXT[-1] != "0" else "1"))
    assert KEY.secret not in f"{caught.value} {caught.value.hint}"


def test_neither_repr_nor_format_shows_the_secret() -> None:
    assert KEY.secret not in repr(KEY)
    assert KEY.secret not in f"{KEY} {[KEY]}"
    assert KEY.id in repr(KEY)


def test_what_is_kept_depends_on_pepper_id_and_secret() -> None:
    mac = KEY.mac(b"pepper")
    assert len(mac) == 32
    assert mac == KEY.mac(b"pepper")
    assert mac != KEY.mac(b"other")
    assert mac != msgspec.structs.replace(KEY, id="ba9876543210").mac(b"pepper")
    assert mac != msgspec.structs.replace(KEY, secret="y" * SECRET_CHARS).mac(b"pepper")
