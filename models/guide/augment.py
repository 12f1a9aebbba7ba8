"""`vary`: another way to type the same question, chosen by a seeded generator.

Real people forget capitals, accents and question marks, are polite, or type keywords. A small corpus holds few of
these forms, and a small model does not guess them.
"""

from __future__ import annotations

import random
import re
import unicodedata
from typing import Final

_PREFIXES: Final = {
    "en": (
        "Please tell me: ",
        "Can you explain: ",
        "Could you tell me, ",
        "Hello, ",
        "Hi! ",
        "Quick question: ",
        "I would like to know: ",
        "One question: ",
        "Tell me, ",
    ),
    "fr": (
        "Peux-tu m'expliquer : ",
        "Pouvez-vous me dire : ",
        "Dites-moi, ",
        "Bonjour, ",
        "Salut, ",
        "Une question : ",
        "Je voudrais savoir : ",
        "S'il vous plaît : ",
        "Dis-moi, ",
    ),
}
_SUFFIXES: Final = {
    "en": (" please", " Thanks.", " in Rempart", " with Rempart?", " in short", " exactly?"),
    "fr": (" s'il vous plaît", " Merci.", " dans Rempart", " avec Rempart ?", " en bref", " exactement ?"),
}
# Beginnings that ask for the same thing. The first form is matched, one of the others takes its place.
_REWRITES: Final = {
    "en": (
        (r"^What (?:is|are) ", ("What's ", "Define ", "Explain ", "Describe ", "Tell me about ", "What do you call ")),
        (r"^How (?:do|can) I ", ("How to ", "I want to ", "What is the way to ", "How could I ", "How can we ")),
        (r"^How (?:do|can) you ", ("How to ", "How do I ", "How can we ")),
        (r"^Why (?:does|do|is|are) ", ("What is the reason why ", "For what reason: ")),
        (r"^Can I ", ("Is it possible to ", "May I ", "Am I able to ")),
        (r"^Tell me about ", ("What is ", "What about ", "Explain ")),
        (r"^Where (?:is|are) ", ("In what place is ", "Where can I find ")),
        (r"^Which ", ("What ",)),
    ),
    "fr": (
        (r"^Qu'est-ce que ", ("C'est quoi ", "Que veut dire ", "Explique ", "Parle-moi de ", "Que désigne ")),
        (r"^Qu'est-ce qu'", ("C'est quoi ", "Explique ce qu'est ")),
        (r"^C'est quoi ", ("Que veut dire ", "Définis ", "Expliquez ", "Que signifie ")),
        (r"^Comment ", ("De quelle façon ", "Comment fait-on pour ", "Je veux savoir comment ", "Comment donc ")),
        (r"^Pourquoi ", ("Pour quelle raison ", "Dans quel but ")),
        (r"^Peut-on ", ("Est-il possible de ", "Puis-je ", "A-t-on le droit de ", "Est-ce qu'on peut ")),
        (r"^Puis-je ", ("Est-il possible de ", "Peut-on ", "Est-ce que je peux ")),
        (r"^Quelles? (?:est|sont) ", ("Donne-moi ", "Dites-moi ", "Indiquez ")),
        (r"^Quels? (?:est|sont) ", ("Donne-moi ", "Dites-moi ", "Indiquez ")),
        (r"^Faut-il ", ("Est-ce qu'il faut ", "Doit-on ", "Est-il nécessaire de ")),
    ),
}
_SMALL_WORDS: Final = {
    "en": "a an the is are do does can of to in it i you me my for with and what how",
    "fr": "un une le la les de du des est sont que qui je tu vous me mon ma pour avec et à ce quel",
}


def vary(question: str, language: str, rng: random.Random) -> str:
    """The question as it is in about a quarter of the cases; else one to three changes, which compose."""
    if rng.random() < 0.25:
        return question
    text = question
    if rng.random() < 0.30:
        text = _rewrite(text, language, rng)
    if rng.random() < 0.12:
        text = _keywords(text, language)
    if rng.random() < 0.15:
        text = _lower_first(text, rng.choice(_PREFIXES[language]))
    if rng.random() < 0.07:
        text = text.rstrip(" ?.!") + rng.choice(_SUFFIXES[language])
    if rng.random() < 0.40:
        text = _punctuate(text, language, rng)
    if rng.random() < 0.25:
        text = _typo(text, rng)
    if language == "fr" and rng.random() < 0.15:
        text = _without_accents(text)
    if rng.random() < 0.25:
        text = text.lower()
    return text.strip() or question


def _rewrite(text: str, language: str, rng: random.Random) -> str:
    for pattern, others in _REWRITES[language]:
        if re.match(pattern, text):
            return re.sub(pattern, rng.choice(others), text, count=1)
    return text


def _keywords(text: str, language: str) -> str:
    small = set(_SMALL_WORDS[language].split())
    words = [word for word in text.rstrip(" ?.!").split() if word.lower().strip(",") not in small]
    return " ".join(words) if len(words) >= 2 else text


def _lower_first(text: str, prefix: str) -> str:
    # "I" and names in capitals stay what they are.
    first = text.split(" ", 1)[0]
    plain = first[1:].islower() or "'" in first
    return prefix + (text[:1].lower() + text[1:] if plain and not text.startswith("Rempart") else text)


def _punctuate(text: str, language: str, rng: random.Random) -> str:
    endings = ("", "?", ".", " ?", "??", "") if language == "en" else ("", "?", " ?", ".", "\u00a0?", "")
    return text.rstrip(" \u00a0?.!") + rng.choice(endings)


def _typo(text: str, rng: random.Random) -> str:
    """One letter dropped, doubled or exchanged with its neighbour, inside a word of five letters or more."""
    words = text.split(" ")
    long = [i for i, word in enumerate(words) if len(word) >= 5 and word.isalpha()]
    if not long:
        return text
    index = rng.choice(long)
    word = words[index]
    at = rng.randrange(1, len(word) - 1)
    words[index] = rng.choice(
        (
            word[:at] + word[at + 1 :],
            word[:at] + word[at] + word[at:],
            word[:at] + word[at + 1] + word[at] + word[at + 2 :],
        )
    )
    return " ".join(words)


def _without_accents(text: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFD", text) if not unicodedata.combining(c))
