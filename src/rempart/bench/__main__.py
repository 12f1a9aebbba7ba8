"""`python -m rempart.bench`: one run of all measurements, printed, kept as results.json, and drawn."""

from __future__ import annotations

import datetime
import signal
import sys
import tempfile
import time
from pathlib import Path

import click
import msgspec

from rempart import __version__
from rempart.bench import litellm_proxy, nginx
from rempart.bench.charts import ChartsMissing, draw
from rempart.bench.ledger import measure_ledger
from rempart.bench.load import GeneratorFailed
from rempart.bench.machine import look
from rempart.bench.measure import measure_all
from rempart.bench.report import report
from rempart.bench.results import QUICK, Collected, Results, Scale
from rempart.bench.servers import contenders


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("build/bench"), help="Directory of the results.")
@click.option("--quick", is_flag=True, help="One short round: whether it works, not how fast it is.")
@click.option("--json", "as_json", is_flag=True, help="Print results.json in place of the tables.")
def main(out: Path, quick: bool, as_json: bool) -> None:
    """Measure the gateway beside nginx and LiteLLM, and the ledger. Everything stays on loopback."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # what was started is stopped
    out.mkdir(parents=True, exist_ok=True)
    try:
        results = _run(out, QUICK if quick else Scale())
    except (nginx.NginxMissing, GeneratorFailed) as error:
        raise click.ClickException(str(error)) from error
    encoded = msgspec.json.format(msgspec.json.encode(results))
    (out / "results.json").write_bytes(encoded + b"\n")
    text = report(results)
    (out / "results.md").write_text(text)
    click.echo(encoded.decode() if as_json else text)
    try:
        for path in draw(results, out):
            _say(f"drawn: {path}")
    except ChartsMissing as error:
        _say(str(error))


def _run(out: Path, scale: Scale) -> Results:
    began, clock = datetime.datetime.now(datetime.UTC), time.monotonic()
    machine = look(out)
    found = Collected()
    with tempfile.TemporaryDirectory(prefix="run-", dir=out.resolve()) as name:
        root = Path(name)
        _say("ledger")
        measure_ledger(root, scale, found)
        with contenders(root, _say) as field:
            measure_all(field.present, scale, found, _say)
    return Results(
        began=began.isoformat(timespec="seconds"),
        seconds=time.monotonic() - clock,
        versions=_versions(),
        machine=machine,
        scale=scale,
        missing=field.missing,
        figures=found.figures(),
    )


def _versions() -> dict[str, str]:
    versions = {"Rempart": __version__, "nginx": nginx.version()}
    try:
        versions["LiteLLM"] = litellm_proxy.version()
    except litellm_proxy.LiteLLMMissing as error:
        versions["LiteLLM"] = f"({error})"
    return versions


def _say(text: str) -> None:
    click.echo(text, err=True)
    sys.stderr.flush()


if __name__ == "__main__":
    main()
