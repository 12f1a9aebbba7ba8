"""`agree`: the trained checkpoint, transformers and llama.cpp say the same; run it after `export.py`.

    python models/guide/agree.py --run build/guide-run

It compares token ids of awkward texts, logits of torch and transformers, and greedy answers of all three.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Final

import torch
from corpus import HERE
from export import load
from model import Guide
from served import Served
from transformers import AutoModelForCausalLM, AutoTokenizer

_TEXTS: Final = (
    "L'été, à Noël, où l'œuvre coûte 12 345,67 € — n'est-ce pas ?",
    "Qu'est-ce qu'un registre\u00a0?\n\n- ligne 1\n\tligne 2  deux espaces   \n",
    "What's it? I'll say: they've 3.14 (or 2,048) GPUs… and `rempart up --port 8080`!",
    "日本語 🚀 naïve ÉCOLE\r\nfin",
    "<|user|>Bonjour<|end|><|assistant|>",
)
_QUESTIONS: Final = ("What is the ledger?", "Qu'est-ce que Rempart ?", "How do I create a key?", "Merci !")
# float16 weights against float32 ones: ten bits of mantissa, through nine layers.
_LOGITS_CLOSE: Final = 0.05
_LONGEST: Final = 120


def agree(run: Path, out: Path) -> None:
    """Raises `AssertionError` where two of them differ."""
    guide, tokenizer = load(run)
    other = AutoModelForCausalLM.from_pretrained(out / "artefact", dtype=torch.float32).eval()
    other_tokenizer = AutoTokenizer.from_pretrained(out / "artefact")
    served = Served(out / "guide-f16.gguf")
    for text in _TEXTS:
        ids = tokenizer.encode(text).ids
        _same("ids of transformers", ids, other_tokenizer(text, add_special_tokens=False)["input_ids"])
        _same("ids of llama.cpp", ids, served.ids(text))
        _same("decoded text", text, tokenizer.decode(ids, skip_special_tokens=False))
    for question in _QUESTIONS:
        messages = [{"role": "system", "content": "Answer briefly."}, {"role": "user", "content": question}]
        prompt = other_tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        ids = tokenizer.encode(prompt).ids
        difference = _difference(guide, other, ids)
        print(f"{question} logits differ by {difference:.4f} at most")
        if difference > _LOGITS_CLOSE:
            raise AssertionError(f"logits differ by {difference}")
        # The float16 numbers of the artefact, not the checkpoint's, are what llama.cpp computes with.
        answer = tokenizer.decode(_greedy(other, ids))
        _same("greedy answer", answer, served.answer(messages, _LONGEST))
    print("torch, transformers and llama.cpp agree")


@torch.no_grad()
def _difference(guide: Guide, other: Any, ids: list[int]) -> float:
    tokens = torch.tensor([ids])
    return float((guide.logits(guide(tokens)) - other(tokens).logits).abs().max())


@torch.no_grad()
def _greedy(model: Any, ids: list[int]) -> list[int]:
    written: list[int] = []
    while len(written) < _LONGEST:
        best = int(model(torch.tensor([ids + written])).logits[0, -1].argmax())
        if best == model.config.eos_token_id:
            break
        written.append(best)
    return written


def _same(what: str, one: object, other: object) -> None:
    if one != other:
        raise AssertionError(f"{what}: {one!r} against {other!r}")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, default=Path("build/guide-run"), help="where the checkpoints are")
    parser.add_argument("--out", type=Path, default=HERE, help="where export.py wrote")
    options = parser.parse_args()
    agree(options.run, options.out)


if __name__ == "__main__":
    main()
