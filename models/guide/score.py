"""`score`: the guide's examination, in the real llama.cpp, with the questions it has never seen.

    python models/guide/score.py --verbose

An answer is right when it holds, case aside, at least one word of each group that its question asks for. That
measures whether the point is there, not whether the sentence is good.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, Final

from corpus import HERE, LANGUAGES, HeldOut, read_heldout
from served import Served

_MODEL: Final = HERE / "guide-f16.gguf"


def score(served: Served, questions: list[HeldOut]) -> list[tuple[HeldOut, str, bool]]:
    """Each question with the greedy answer and whether it is right."""
    rows = []
    for item in questions:
        answer = served.answer([{"role": "user", "content": item.question}])
        rows.append((item, answer, item.satisfied_by(answer)))
    return rows


def fractions(rows: list[tuple[HeldOut, str, bool]]) -> dict[str, Any]:
    """Per language: how many were asked, how many right, and their quotient to three digits."""
    found: dict[str, Any] = {}
    for language in LANGUAGES:
        results = [right for item, _, right in rows if item.language == language]
        if results:
            fraction = round(sum(results) / len(results), 3)
            found[language] = {"asked": len(results), "right": sum(results), "fraction": fraction}
    return found


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=_MODEL)
    parser.add_argument("--out", type=Path, default=HERE / "score.json")
    parser.add_argument("--verbose", action="store_true", help="print every question and answer")
    options = parser.parse_args()
    served = Served(options.model)
    rows, unseen = score(served, read_heldout()), score(served, read_heldout(kind="unseen-"))
    if options.verbose:
        for item, answer, right in (*rows, *unseen):
            print(f"{'right' if right else 'WRONG'} [{item.language}] {item.question}\n    {answer}")
    result = {**fractions(rows), "unseen": fractions(unseen)}
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
