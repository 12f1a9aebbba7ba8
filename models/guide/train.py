"""`train`: teach the guide the corpus, on a CPU, with fixed seeds and a fixed number of steps.

    python models/guide/train.py --run build/guide-run

Started again with the same folder it goes on from the last checkpoint.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import corpus as source
import tokenizer as vocabulary
import torch
from batches import Batch, Writer, epoch
from model import Guide, Shape
from tokenizers import Tokenizer
from torch.nn import functional

STEPS: Final = 1400
LEARNING_RATE: Final = 1e-3
WARM_UP: Final = 150
DROPOUT: Final = 0.15
SEED: Final = 2026
_LOG_EVERY: Final = 50
_SAVE_EVERY: Final = 500


def train(run: Path, steps: int, minutes: float) -> None:
    """Trains until `steps` are done, or pauses with a checkpoint after `minutes`."""
    run.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(SEED)
    texts = source.read()
    tokenizer = _tokenizer(run, texts)
    guide = Guide(Shape(vocabulary=vocabulary.VOCABULARY), DROPOUT)
    optimizer = _optimizer(guide)
    done = _resume(run, guide, optimizer)
    print(f"{sum(p.numel() for p in guide.parameters())} parameters, from step {done} to {steps}", flush=True)
    writer = Writer(tokenizer)
    begun = mark = time.monotonic()
    loss_sum, tokens = 0.0, 0
    guide.train()
    for step, batch in _steps(texts, writer, done, steps):
        loss_sum += _learn(guide, optimizer, batch, _rate(step, steps))
        tokens += batch.tokens.numel()
        done = step + 1
        if done % _LOG_EVERY == 0:
            now = time.monotonic()
            print(f"step {done} loss {loss_sum / _LOG_EVERY:.4f} {tokens / (now - mark):.0f} tokens/s", flush=True)
            loss_sum, tokens, mark = 0.0, 0, now
        late = time.monotonic() - begun > minutes * 60
        if done % _SAVE_EVERY == 0 or done == steps or late:
            _save(run, guide, optimizer, done)
        if late:
            break
    print(f"{done} steps, {(time.monotonic() - begun) / 60:.1f} minutes", flush=True)


def _tokenizer(run: Path, texts: source.Corpus) -> Tokenizer:
    path = run / "tokenizer.json"
    if not path.exists():
        vocabulary.train(texts.texts()).save(str(path))
    return Tokenizer.from_file(str(path))


def _optimizer(guide: Guide) -> torch.optim.AdamW:
    """Matrices decay, norms do not; nor does the embedding, whose rare rows would only fade."""
    decaying, free = [], []
    for name, parameter in guide.named_parameters():
        (decaying if parameter.dim() == 2 and "embed" not in name else free).append(parameter)
    groups = [{"params": decaying, "weight_decay": 0.1}, {"params": free, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=(0.9, 0.95), fused=True)


def _steps(texts: source.Corpus, writer: Writer, done: int, steps: int) -> Iterator[tuple[int, Batch]]:
    """Numbered batches, epoch after epoch; those already done are passed over."""
    step, number = 0, 0
    while step < steps:
        for batch in epoch(texts, writer, SEED, number):
            if done <= step < steps:
                yield step, batch
            step += 1
        number += 1


def _rate(step: int, steps: int) -> float:
    """Linear warm-up, then a cosine down to a twentieth."""
    if step < WARM_UP:
        return LEARNING_RATE * (step + 1) / WARM_UP
    part = (step - WARM_UP) / max(1, steps - WARM_UP)
    return LEARNING_RATE * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * part)))


def _learn(guide: Guide, optimizer: torch.optim.AdamW, batch: Batch, rate: float) -> float:
    for group in optimizer.param_groups:
        group["lr"] = rate
    # bfloat16 in the products: twice as fast as float32 on a CPU that has it; the weights stay float32.
    with torch.autocast("cpu", torch.bfloat16):
        hidden = guide(batch.tokens)
        learnt = batch.targets != -100
        logits = guide.logits(hidden[learnt])
    loss = functional.cross_entropy(logits.float(), batch.targets[learnt])
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(guide.parameters(), 1.0)
    optimizer.step()
    return loss.item()


def _save(run: Path, guide: Guide, optimizer: torch.optim.AdamW, done: int) -> None:
    state: dict[str, Any] = {
        "shape": asdict(guide.shape),
        "guide": guide.state_dict(),
        "optimizer": optimizer.state_dict(),
        "random": torch.get_rng_state(),
        "done": done,
    }
    torch.save(state, run / "next.pt")
    os.replace(run / "next.pt", run / "last.pt")


def _resume(run: Path, guide: Guide, optimizer: torch.optim.AdamW) -> int:
    path = run / "last.pt"
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    guide.load_state_dict(state["guide"])
    optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["random"])
    return int(state["done"])


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, default=Path("build/guide-run"), help="where checkpoints go")
    parser.add_argument("--steps", type=int, default=STEPS, help="how many steps the whole training has")
    parser.add_argument("--minutes", type=float, default=math.inf, help="pause after so long, to be resumed")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    train(options.run, options.steps, options.minutes)


if __name__ == "__main__":
    main()
