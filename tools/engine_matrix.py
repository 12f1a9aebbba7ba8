"""The matrix of `docs/engines.md` from the reports that `make test-engines` left in `build/engines`.

`docs/engines.json` keeps the reports. Without `--write` nothing is changed: exits with 1 when the last run found other
than what the page says; times are not compared.
"""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from rempart.testing.conformance import Report
from rempart.testing.matrix import matrix, placed

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "docs" / "engines.json"
PAGE = ROOT / "docs" / "engines.md"
ENGINES = ("vllm", "triton", "llamacpp", "transformers", "ollama")


def main(write: bool) -> int:
    """0 when page and run agree, or the page was written."""
    try:
        found = [msgspec.json.decode(_report(name).read_bytes(), type=Report) for name in ENGINES]
    except FileNotFoundError as error:
        print(f"{error.filename} is missing: run make test-engines", file=sys.stderr)
        return 1
    if write:
        DATA.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n")
        PAGE.write_text(placed(PAGE.read_text(), matrix(found)))
        return 0
    kept = msgspec.json.decode(DATA.read_bytes(), type=list[Report])
    if [_timeless(report) for report in found] == [_timeless(report) for report in kept]:
        return 0
    print("The engines do other than docs/engines.md says: run tools/engine_matrix.py --write", file=sys.stderr)
    return 1


def _report(name: str) -> Path:
    return ROOT / "build" / "engines" / f"{name}.json"


def _timeless(report: Report) -> Report:
    outcomes = tuple(msgspec.structs.replace(outcome, seconds=None) for outcome in report.outcomes)
    return msgspec.structs.replace(report, outcomes=outcomes)


if __name__ == "__main__":
    sys.exit(main("--write" in sys.argv[1:]))
