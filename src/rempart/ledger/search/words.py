"""`words`: a text as the words that are searched for (pure).

A word is a run of letters and digits after Unicode case folding and NFKD, without its combining marks: `L'Été` is `l`
and `ete`. Marks that are letters of their script (vowel signs, class 0) stay. Scripts without spaces between words
(Han, Hiragana, Katakana) give a word for each character. A word is cut after `limits.index_word_chars_max` characters,
the same in the index and in a query.
"""

from __future__ import annotations

import unicodedata
from typing import Final

from rempart import limits

# Han with its extensions and compatibility forms, Hiragana, Katakana (Unicode blocks).
_ALONE: Final = ((0x3040, 0x30FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF))


def words(text: str) -> list[str]:
    """In order, with repetitions."""
    folded = text.casefold()
    if not folded.isascii():
        # Folding again: NFKD may bring capitals out of compatibility forms (Unicode 3.13, D146).
        folded = unicodedata.normalize("NFKD", folded).casefold()
    found = folded.translate(_FOLD).split()
    most = limits.index_word_chars_max
    if max(map(len, found), default=0) > most:
        return [word if len(word) <= most else word[:most] for word in found]
    return found


class _Fold(dict[int, str | None]):
    """What `str.translate` makes of a character, found out once for each that occurs."""

    def __missing__(self, code: int) -> str | None:
        self[code] = found = _fold(code)
        return found


def _fold(code: int) -> str | None:
    character = chr(code)
    if unicodedata.combining(character):
        return None
    if any(first <= code <= last for first, last in _ALONE):
        return f" {character} " if character.isalnum() else " "
    kept = character.isalnum() or unicodedata.category(character).startswith("M")
    return character if kept else " "


_FOLD: Final = _Fold()
