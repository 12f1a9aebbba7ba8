"""`epoch`: the corpus, varied anew, as batches of about equally long conversations.

An epoch is a function of the corpus, the seed and its number, so that an interrupted training finds its place again.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import tokenizer as vocabulary
import torch
from augment import vary
from corpus import Corpus, Fact, normalise
from tokenizers import Tokenizer
from torch import Tensor

CONTEXT: Final = 512
BATCH_TOKENS: Final = 2048
_TWO_TURNS: Final = 0.12
_SYSTEM: Final = 0.12
_NOISY: Final = 0.5
_EXCHANGED: Final = 0.12
_LOST: Final = _EXCHANGED + 0.10
_SYSTEMS: Final = (
    "You are the Rempart guide.",
    "You are a helpful assistant.",
    "Answer briefly.",
    "Vous êtes le guide de Rempart.",
    "Tu es un assistant utile.",
    "Répondez brièvement.",
)


@dataclass(frozen=True, slots=True)
class Example:
    """Token ids, and for each whether it is to be learnt."""

    ids: list[int]
    learnt: list[bool]


@dataclass(frozen=True, slots=True)
class Batch:
    """`tokens` [batch, length]; `targets` has the next token where it is learnt and -100 elsewhere."""

    tokens: Tensor
    targets: Tensor


class Writer:
    """Writes conversations in the form of the chat template."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._end = vocabulary.special(tokenizer, vocabulary.END)
        self._endoftext = vocabulary.special(tokenizer, vocabulary.ENDOFTEXT)
        self._roles = {
            role: vocabulary.special(tokenizer, name)
            for role, name in (
                ("system", vocabulary.SYSTEM),
                ("user", vocabulary.USER),
                ("assistant", vocabulary.ASSISTANT),
            )
        }

    def conversation(self, messages: list[tuple[str, str]], rng: random.Random) -> Example:
        """Pairs of role and text; what the assistant says, its end included, is learnt."""
        noisy = rng.random() < _NOISY
        ids: list[int] = []
        learnt: list[bool] = []
        for role, text in messages:
            body = vocabulary.ids(self._tokenizer, text)
            if noisy and role == "user":
                body = self._disturb(body, rng)
            body.append(self._end)
            ids += [self._roles[role], *body]
            learnt += [False, *[role == "assistant"] * len(body)]
        return Example(ids[:CONTEXT], learnt[:CONTEXT])

    def _disturb(self, ids: list[int], rng: random.Random) -> list[int]:
        """Some tokens lost, some exchanged for any other: words the corpus does not know look like that."""
        kept = []
        for token in ids:
            chance = rng.random()
            if chance < _EXCHANGED:
                kept.append(rng.randrange(len(vocabulary.SPECIALS), self._tokenizer.get_vocab_size()))
            elif chance > _LOST:
                kept.append(token)
        return kept or ids

    def prose(self, text: str) -> Example:
        """A paragraph, learnt as a whole."""
        ids = [self._endoftext, *vocabulary.ids(self._tokenizer, text), self._endoftext][:CONTEXT]
        return Example(ids, [True] * len(ids))


def epoch(corpus: Corpus, writer: Writer, seed: int, number: int) -> Iterator[Batch]:
    """Every question once, with one of its answers, and every paragraph once, in a random order."""
    rng = random.Random(f"{seed}/{number}")
    examples = _examples(corpus, writer, rng)
    # Equally long ones share a batch, so that little is padding; the noise keeps the company changing.
    examples.sort(key=lambda example: len(example.ids) + rng.uniform(0, 12))
    batches: list[list[Example]] = [[]]
    longest = 0
    for example in examples:
        longest = max(longest, len(example.ids))
        if batches[-1] and longest * (len(batches[-1]) + 1) > BATCH_TOKENS:
            batches.append([])
            longest = len(example.ids)
        batches[-1].append(example)
    rng.shuffle(batches)
    return (_pad(batch) for batch in batches)


def _examples(corpus: Corpus, writer: Writer, rng: random.Random) -> list[Example]:
    forbidden = {normalise(item.question) for item in corpus.heldout}
    same_language: dict[str, list[Fact]] = {}
    for fact in corpus.facts:
        same_language.setdefault(fact.language, []).append(fact)
    examples = [writer.prose(text) for text in corpus.prose]
    for fact in corpus.facts:
        for question in fact.questions:
            messages = _turn(fact, question, forbidden, rng)
            if rng.random() < _TWO_TURNS:
                earlier = rng.choice(same_language[fact.language])
                messages = _turn(earlier, rng.choice(earlier.questions), forbidden, rng) + messages
            if rng.random() < _SYSTEM:
                messages.insert(0, ("system", rng.choice(_SYSTEMS)))
            examples.append(writer.conversation(messages, rng))
    return examples


def _turn(fact: Fact, question: str, forbidden: set[str], rng: random.Random) -> list[tuple[str, str]]:
    asked = vary(question, fact.language, rng)
    # By chance a variation may be a held-out question: it is not learnt, the written question is.
    if normalise(asked) in forbidden:
        asked = question
    return [("user", asked), ("assistant", rng.choice(fact.answers))]


def _pad(examples: list[Example]) -> Batch:
    length = max(len(example.ids) for example in examples) - 1
    tokens = torch.zeros(len(examples), length, dtype=torch.long)
    targets = torch.full((len(examples), length), -100, dtype=torch.long)
    for row, example in enumerate(examples):
        ids = torch.tensor(example.ids)
        learnt = torch.tensor(example.learnt)
        tokens[row, : len(ids) - 1] = ids[:-1]
        targets[row, : len(ids) - 1] = torch.where(learnt[1:], ids[1:], -100)
    return Batch(tokens, targets)
