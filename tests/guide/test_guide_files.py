"""The guide's files are there, small, and say of themselves what is true. No torch needed."""

from __future__ import annotations

import json
import re
import tomllib
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest

from rempart.formats.gguf import read_header

GUIDE = Path(__file__).parents[2] / "models" / "guide"
BYTES_MAX = 20_000_000
LANGUAGES = {"en": "English", "fr": "French"}


@pytest.mark.parametrize(
    "name",
    [
        "guide-f16.gguf",
        "artefact/model.safetensors",
        "artefact/config.json",
        "artefact/generation_config.json",
        "artefact/tokenizer.json",
        "artefact/tokenizer_config.json",
        "score.json",
        "CARD.md",
    ],
)
def test_the_files_are_there_and_small(name: str) -> None:
    assert 0 < (GUIDE / name).stat().st_size <= BYTES_MAX


def test_the_gguf_says_what_it_is() -> None:
    with (GUIDE / "guide-f16.gguf").open("rb") as file:
        header = read_header(file)
    assert header.architecture == "llama"
    assert header.name == "Rempart guide"
    assert header.context_tokens == 512
    assert header.tensors == 2 + 9 * 9


def test_the_two_forms_have_the_same_sizes() -> None:
    config = json.loads((GUIDE / "artefact" / "config.json").read_text())
    with (GUIDE / "guide-f16.gguf").open("rb") as file:
        header = read_header(file)
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["max_position_embeddings"] == header.context_tokens
    assert config["num_hidden_layers"] * 9 + 2 == header.tensors


def test_the_tokenizer_has_the_special_tokens_first() -> None:
    tokenizer = json.loads((GUIDE / "artefact" / "tokenizer.json").read_text())
    names = ["<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
    assert [tokenizer["model"]["vocab"][name] for name in names] == [0, 1, 2, 3, 4]
    assert len(tokenizer["model"]["vocab"]) <= json.loads((GUIDE / "artefact/config.json").read_text())["vocab_size"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_held_out_question_stands_in_the_corpus(language: str) -> None:
    corpus = [f" {_normalised(text)} " for text in _corpus_texts()]
    questions = [*_held_out(language), *_held_out(f"unseen-{language}")]
    assert questions
    assert [question for question in questions if any(f" {_normalised(question)} " in text for text in corpus)] == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_card_states_the_measured_score(language: str) -> None:
    score = json.loads((GUIDE / "score.json").read_text())[language]
    assert score["asked"] == len(_held_out(language))
    assert score["fraction"] == round(score["right"] / score["asked"], 3)
    card = (GUIDE / "CARD.md").read_text()
    stated = re.search(rf"\| {LANGUAGES[language]} \| (\d+) \| (\d+) \| ([\d.]+) % \|", card)
    assert stated is not None
    assert (int(stated[1]), int(stated[2])) == (score["asked"], score["right"])
    assert stated[3] == f"{100 * score['right'] / score['asked']:.1f}"


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_card_states_the_score_on_unseen_questions(language: str) -> None:
    score = json.loads((GUIDE / "score.json").read_text())["unseen"][language]
    assert score["asked"] == len(_held_out(f"unseen-{language}"))
    percent = f"{100 * score['right'] / score['asked']:.1f}"
    row = f"| in {LANGUAGES[language]} | {score['asked']} | {score['right']} | {percent} % |"
    assert row in (GUIDE / "CARD.md").read_text()


def _held_out(language: str) -> list[str]:
    lines = (GUIDE / "heldout" / f"{language}.jsonl").read_text().splitlines()
    return [json.loads(line)["question"] for line in lines if line.strip()]


def _corpus_texts() -> Iterator[str]:
    for path in sorted((GUIDE / "corpus").glob("*/*.toml")):
        document = tomllib.loads(path.read_text())
        for fact in document.get("fact", []):
            yield from fact["questions"]
            yield from fact["answers"]
        yield from document.get("prose", {}).get("text", [])


def _normalised(text: str) -> str:
    """As the training does it: letters and digits without case and accents."""
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    kept = "".join(c if c.isalnum() else " " for c in decomposed if not unicodedata.combining(c))
    return " ".join(kept.split())
