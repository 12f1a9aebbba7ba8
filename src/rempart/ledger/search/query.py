"""`parse`: what is searched for, from a line of text (pure).

    refund "credit note" actor:a_1f… model:qwen3 outcome:ok finding:iban class:standard after:2026-11-01

Words and phrases must all occur in one entry. Fields must all hold; one that is given twice holds when either does.
`after` is from the beginning of that day or hour (UTC, `2026-11-23T17`) on, `before` is until its beginning. A
value with spaces stands in double quotes: `model:"my model"`. An `actor` is a pseudonym, or a name as keys have it.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

from rempart import limits
from rempart.errors import InvalidRequest
from rempart.ledger.search.words import words

FIELDS: Final = ("actor", "model", "outcome", "finding")
OUTCOMES: Final = ("ok", "refused", "failed", "cancelled", "cut", "lost")
_KNOWN: Final = (*FIELDS, "class", "after", "before")
_TOKEN: Final = re.compile(r'\s*(?:(?P<field>[A-Za-z_]+):)?(?:"(?P<quoted>[^"]*)(?P<end>"?)|(?P<bare>[^\s"]*))')
_TIME: Final = re.compile(r"\d{4}-\d{2}-\d{2}(?:T\d{2})?", re.ASCII)


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """All of it must hold."""

    words: tuple[str, ...] = ()
    phrases: tuple[tuple[str, ...], ...] = ()
    """Each of two words or more."""
    fields: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Field and its values, of which any may hold."""
    classes: tuple[str, ...] = ()
    """Retention classes; all when empty."""
    after: datetime | None = None
    """UTC, a whole hour; entries from then on."""
    before: datetime | None = None
    """UTC, a whole hour; entries until then, not of then."""

    @property
    def all_words(self) -> tuple[str, ...]:
        """Each once, those of phrases too, the longest first: they are the rarest."""
        every = {*self.words, *(word for phrase in self.phrases for word in phrase)}
        return tuple(sorted(every, key=lambda word: (-len(word), word)))


class _Parts:
    def __init__(self) -> None:
        self.words: list[str] = []
        self.phrases: list[tuple[str, ...]] = []
        self.fields: dict[str, list[str]] = {}
        self.times: dict[str, datetime] = {}


def parse(text: str) -> Query:
    """Raises `InvalidRequest`, which says where."""
    if len(text) > limits.query_chars_max:
        raise _error(f"A query has at most {limits.query_chars_max} characters, not {len(text)}.")
    parts = _Parts()
    place, end = 0, len(text.rstrip())
    while place < end:
        token = _TOKEN.match(text, place)
        assert token is not None  # every group may be empty
        begin = len(text) - len(text[place:].lstrip())
        if token["quoted"] is not None and not token["end"]:
            raise _error(f"The quotation mark at character {text.index(chr(34), begin) + 1} is not closed.")
        _take(parts, token, begin)
        place = token.end()
    return _query(parts)


def _query(parts: _Parts) -> Query:
    classes = parts.fields.pop("class", [])
    count = len(parts.words) + sum(map(len, (*parts.phrases, *parts.fields.values(), classes)))
    if not count and not parts.times:
        raise _error("The query is empty.", "Give a word, a phrase in quotes, or a field such as outcome:refused.")
    if count > limits.query_terms_max:
        raise _error(f"A query has at most {limits.query_terms_max} words and values, not {count}.")
    after, before = parts.times.get("after"), parts.times.get("before")
    if after is not None and before is not None and after >= before:
        raise _error("Nothing lies between `after` and `before`.", "`after` must be the earlier one.")
    return Query(
        words=tuple(dict.fromkeys(parts.words)),
        phrases=tuple(dict.fromkeys(parts.phrases)),
        fields=tuple((name, tuple(values)) for name, values in parts.fields.items()),
        classes=tuple(classes),
        after=after,
        before=before,
    )


def _take(parts: _Parts, token: re.Match[str], begin: int) -> None:
    where = f"at character {begin + 1}"
    value: str = token["bare"] if token["quoted"] is None else token["quoted"]
    field = (token["field"] or "").lower()
    if field:
        _take_field(parts, field, value, where)
        return
    found = tuple(words(value))
    if not found:
        raise _error(f"There is no letter and no digit in the word {where}.")
    if token["quoted"] is not None and len(found) > 1:
        parts.phrases.append(found)
    else:
        parts.words.extend(found)


def _take_field(parts: _Parts, field: str, value: str, where: str) -> None:
    if field not in _KNOWN:
        raise _error(
            f"`{field}` {where} is not a field of a query.",
            f"The fields are {', '.join(_KNOWN)}. Put text with a colon in quotes.",
        )
    if not value:
        raise _error(f"`{field}:` {where} has no value.")
    if field in ("after", "before"):
        if field in parts.times:
            raise _error(f"`{field}:` {where} is there a second time.")
        parts.times[field] = _time(field, value, where)
    else:
        known = value.casefold()
        if field == "outcome" and known not in OUTCOMES:
            raise _error(f"`{value}` {where} is no outcome.", f"The outcomes are {', '.join(OUTCOMES)}.")
        # A class and a person's name are told apart by their capitals; a pseudonym has none.
        named = field == "class" or (field == "actor" and not known.startswith("a_"))
        parts.fields.setdefault(field, []).append(value if named else known)


def _time(field: str, value: str, where: str) -> datetime:
    hint = "Write a UTC day, 2026-11-23, or an hour of it, 2026-11-23T17."
    if _TIME.fullmatch(value) is None:
        raise _error(f"The value of `{field}:` {where} is no day.", hint)
    try:
        found = datetime.fromisoformat(value).replace(tzinfo=UTC)
        found - timedelta(days=7), found + timedelta(days=7)
    except (ValueError, OverflowError) as error:
        raise _error(f"The value of `{field}:` {where} is no day of the calendar.", hint) from error
    return found


def _error(message: str, hint: str = "") -> InvalidRequest:
    return InvalidRequest(message, hint=hint, param="query")
