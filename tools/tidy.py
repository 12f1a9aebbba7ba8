"""Style as a test: what the other tools do not watch. Exits with 1 and one line per finding.

Watched: length of files (500 lines) and functions (70), positional parameters (6), `global`, broad excepts that
neither raise nor log, environment reads outside `config` and `cli`, and in the pure rooms async functions and clocks.
Exceptions stand in `tools/debts.txt`, one name a line; a debt that is paid must be taken out, so the list only shrinks.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("src/rempart", "tools", "models/guide")
FILE_LINES_MAX = 500
FUNCTION_LINES_MAX = 70
PARAMETERS_MAX = 6
PURE = (
    *("src/rempart/wire", "src/rempart/exchange", "src/rempart/formats", "src/rempart/routing"),
    *(f"src/rempart/ledger/log/{name}.py" for name in ("merkle", "tiles", "entry", "proof", "policy")),
    *(f"src/rempart/ledger/log/{name}.py" for name in ("checkpoint", "cosignature", "submission", "consistency")),
    "src/rempart/witness/answer.py",
    *("src/rempart/ledger/keys/body.py", "src/rempart/ledger/keys/ggm.py", "src/rempart/ledger/store/frames.py"),
)
CLOCKS = frozenset({"time", "monotonic", "perf_counter", "now", "utcnow", "today"})
# The borders where a broad except is right: the request edge, the server's clock, and that between processes.
BORDERS = frozenset(
    (*(f"src/rempart/gateway/{name}.py" for name in ("app", "perform", "control", "server")), "src/rempart/ipc/talk.py")
)
ENVIRONMENT = ("src/rempart/config", "src/rempart/cli", "src/rempart/testing", "src/rempart/bench")


def main() -> int:
    """Look at every file; 0 when all is tidy."""
    debts = {line for line in (ROOT / "tools" / "debts.txt").read_text().splitlines() if line and line[0] != "#"}
    found: dict[str, str] = {}
    for source in SOURCES:
        for path in sorted((ROOT / source).rglob("*.py")):
            name = str(path.relative_to(ROOT))
            found.update({f"{name}: {key}": text for key, text in _look(name, path.read_text())})
    new = [f"{key}: {text}" for key, text in found.items() if key not in debts]
    paid = [f"{debt}: is paid, take it out of tools/debts.txt" for debt in sorted(debts - set(found))]
    for line in (*new, *paid):
        print(line, file=sys.stderr)
    return 1 if new or paid else 0


def _look(name: str, text: str) -> Iterator[tuple[str, str]]:
    """(what a debt would be called, what is wrong)."""
    lines = text.count("\n")
    if lines > FILE_LINES_MAX:
        yield "file", f"has {lines} lines, at most {FILE_LINES_MAX}"
    pure = name.startswith(PURE)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _function(node, pure)
        elif isinstance(node, ast.Global):
            yield f"global {', '.join(node.names)}", "state belongs to an object"
        elif isinstance(node, ast.ExceptHandler):
            yield from _handler(node, name)
        elif isinstance(node, ast.Attribute) and node.attr == "environ" and not name.startswith(ENVIRONMENT):
            yield "environ", "only config and cli read the environment"
        elif pure and isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CLOCKS:
            yield f"clock {node.func.attr}", "a pure room gets the time as an argument"


def _function(node: ast.FunctionDef | ast.AsyncFunctionDef, pure: bool) -> Iterator[tuple[str, str]]:
    lines = (node.end_lineno or node.lineno) - node.lineno + 1
    if lines > FUNCTION_LINES_MAX:
        yield node.name, f"has {lines} lines, at most {FUNCTION_LINES_MAX}"
    positional = [one for one in (*node.args.posonlyargs, *node.args.args) if one.arg not in ("self", "cls")]
    if len(positional) > PARAMETERS_MAX:
        yield f"{node.name} parameters", f"{len(positional)} positional parameters, at most {PARAMETERS_MAX}"
    if pure and isinstance(node, ast.AsyncFunctionDef):
        yield f"async {node.name}", "a pure room is not asynchronous"


def _handler(node: ast.ExceptHandler, name: str) -> Iterator[tuple[str, str]]:
    broad = node.type is None or (isinstance(node.type, ast.Name) and node.type.id in ("Exception", "BaseException"))
    silent = all(isinstance(one, ast.Pass) for one in node.body)
    if silent:
        yield f"swallowed at {node.lineno}", "an error is swallowed"
    elif broad and name not in BORDERS and not any(isinstance(one, ast.Raise) for one in ast.walk(node)):
        yield f"broad at {node.lineno}", "a broad except that does not raise"


if __name__ == "__main__":
    sys.exit(main())
