"""`read`: the corpus the guide learns from, checked against the questions it is examined with.

`corpus/{en,fr}/*.toml` holds facts (questions, answers) and prose; `heldout/{en,fr}.jsonl` holds questions that must
never be learnt. Run as a script, it counts what there is and refuses a corpus that gives a held-out question away.
"""

from __future__ import annotations

import json
import tomllib
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).resolve().parent
LANGUAGES: Final = ("en", "fr")


class BadCorpus(ValueError):
    """A file of the corpus, or of the held-out questions, is not what it must be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One thing to know: ways to ask for it and ways to tell it, all in one language."""

    language: str
    topic: str
    questions: tuple[str, ...]
    answers: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """A question of the examination; an answer must hold one of each group of words."""

    language: str
    question: str
    must: tuple[tuple[str, ...], ...]

    def satisfied_by(self, answer: str) -> bool:
        """Case does not count, nor does the form of an apostrophe or the width of a space."""
        text = _comparable(answer)
        return all(any(_comparable(word) in text for word in group) for group in self.must)


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """All facts and paragraphs, in the order of the files' names."""

    facts: tuple[Fact, ...]
    prose: tuple[str, ...]
    heldout: tuple[HeldOut, ...]

    def texts(self) -> list[str]:
        """Every text once, for the tokenizer."""
        return [*self.prose, *(text for fact in self.facts for text in (*fact.questions, *fact.answers))]


def read(root: Path = HERE) -> Corpus:
    """Reads everything under `root`. Raises `BadCorpus`, naming the file."""
    facts: list[Fact] = []
    prose: list[str] = []
    for language in LANGUAGES:
        for path in sorted((root / "corpus" / language).glob("*.toml")):
            more_facts, more_prose = _read_file(path, language)
            facts += more_facts
            prose += more_prose
    corpus = Corpus(facts=tuple(facts), prose=tuple(prose), heldout=tuple(read_heldout(root)))
    leaked = leaks(corpus)
    if leaked:
        raise BadCorpus("held-out questions stand in the corpus: " + "; ".join(leaked))
    return corpus


def read_heldout(root: Path = HERE, kind: str = "") -> list[HeldOut]:
    """The examination's questions; of the kind `unseen-`, those that nobody who wrote corpus had seen, nor who wrote
    them the corpus. Raises `BadCorpus`."""
    found = []
    for language in LANGUAGES:
        path = root / "heldout" / f"{kind}{language}.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                must = tuple(tuple(group) for group in row["must"])
                found.append(HeldOut(language=language, question=row["question"], must=must))
            except (ValueError, KeyError, TypeError) as error:
                raise BadCorpus(f"{path.name}, line {number}: {error}") from error
    return found


def leaks(corpus: Corpus) -> list[str]:
    """The held-out questions whose normalised text occurs in a text of the corpus."""
    texts = [f" {normalise(text)} " for text in corpus.texts()]
    return [item.question for item in corpus.heldout if any(f" {normalise(item.question)} " in text for text in texts)]


def normalise(text: str) -> str:
    """Letters and digits only, without case and accents, single spaces: what two wordings must share to be one."""
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    kept = "".join(c if c.isalnum() else " " for c in decomposed if not unicodedata.combining(c))
    return " ".join(kept.split())


def _comparable(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).replace("’", "'").casefold().split())


def _read_file(path: Path, language: str) -> tuple[list[Fact], list[str]]:
    try:
        with path.open("rb") as file:
            document = tomllib.load(file)
        topic = document["topic"]
        facts = [
            Fact(language=language, topic=topic, questions=_lines(fact["questions"]), answers=_lines(fact["answers"]))
            for fact in document.get("fact", [])
        ]
        prose = [text.strip() for text in document.get("prose", {}).get("text", [])]
    except (ValueError, KeyError, TypeError) as error:
        raise BadCorpus(f"{language}/{path.name}: {error!r}") from error
    return facts, prose


def _lines(texts: list[str]) -> tuple[str, ...]:
    kept = tuple(text.strip() for text in texts if text.strip())
    if not kept:
        raise ValueError("a fact without questions or answers")
    return kept


def main() -> None:
    """Print what there is."""
    corpus = read()
    for language in LANGUAGES:
        facts = [fact for fact in corpus.facts if fact.language == language]
        questions = sum(len(fact.questions) for fact in facts)
        examined = sum(item.language == language for item in corpus.heldout)
        print(f"{language}: {len(facts)} facts, {questions} questions, {examined} held out")
    print(f"{len(corpus.prose)} paragraphs, {sum(map(len, corpus.texts()))} characters")


if __name__ == "__main__":
    main()
