"""`rempart ledger review` and `reviews`."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rempart.cli.main import main
from rempart.ledger.reading.review import days_since

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """`main` on one data directory, which has a few entries."""
    for name in os.environ:
        if name.startswith("REMPART_"):
            monkeypatch.delenv(name)

    def _run(*arguments: str | Path) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([*map(str, arguments), "--data", str(tmp_path / "data")])
        assert isinstance(ended.value.code, int)
        return ended.value.code, *capsys.readouterr()

    assert _run("key", "create", "--name", "nightly")[0] == 0
    return _run


def reviewed(run: Run, note: str = "All is well.") -> dict[str, Any]:
    status, out, err = run("ledger", "review", "--by", "Ada Lovelace", "--note", note, "--json")
    assert status == 0, err
    found: dict[str, Any] = msgspec.json.decode(out)
    return found


def test_a_review_covers_what_came_since_the_last_one(run: Run) -> None:
    first = reviewed(run)
    assert first["first"] == 0
    assert first["events"]["key"] == 1
    second = reviewed(run)
    assert second["first"] == first["index"] + 1
    assert second["by"] == first["by"]
    assert second["by"].startswith("a_")
    _, out, _ = run("ledger", "reviews", "--json")
    told = msgspec.json.decode(out)
    assert [one["index"] for one in told["reviews"]] == [second["index"], first["index"]]
    assert told["due"] == second["due"]
    assert run("ledger", "reviews")[1].splitlines()[-1] == f"The next review is due on {told['due']}."


def test_nothing_of_it_is_in_clear_but_an_auditor_reads_it(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    auditor = msgspec.json.decode(run("key", "create", "--name", "audit", "--role", "auditor", "--json")[1])
    made = reviewed(run, "Dr Gray looked up a neighbour.")
    held = b"".join(path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file())
    assert b"Lovelace" not in held
    assert b"neighbour" not in held
    with monkeypatch.context() as patched:
        patched.setenv("REMPART_KEY", auditor["key"])
        assert "neighbour" in run("ledger", "show", str(made["index"]), "--full", "--reason", "The yearly audit.")[1]
    assert "neighbour" not in run("ledger", "show", str(made["index"]), "--sealed")[1]
    assert f"by {made['by']}" in run("ledger", "tail")[1]
    for command in ("verify", "fsck"):
        assert run("ledger", command)[0] == 0


def test_the_name_and_the_note_may_come_from_stdin(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    named = reviewed(run)
    monkeypatch.setattr("sys.stdin", io.StringIO("Ada Lovelace\nAll is well.\n"))
    status, out, _ = run("ledger", "review", "--by", "-", "--note", "-")
    assert status == 0
    assert named["by"] in out
    assert "All is well." in out


def test_the_report_is_one_page_and_shows_no_tags_of_others(run: Run, tmp_path: Path) -> None:
    page = tmp_path / "review.html"
    status, out, _ = run("ledger", "review", "--by", "Ada", "--note", "<script>x</script>", "--html", page)
    assert status == 0
    assert len(out.splitlines()) < 40
    assert "Outcomes" in out
    text = page.read_text()
    assert "<script>" not in text
    assert "&lt;script&gt;" in text
    assert "http://" not in text
    assert "https://" not in text


def test_days_since_the_last_review_are_counted(run: Run, tmp_path: Path) -> None:
    import time

    ledger = tmp_path / "data" / "ledger"
    in_ten_days = time.time() + 10 * 86_400
    assert 9.9 < days_since(ledger, in_ten_days) < 10.1
    reviewed(run)
    assert 9.9 < days_since(ledger, in_ten_days) < 10.1
    (ledger / "reviewed").write_text("2020-01-01T00:00:00.000000Z\n")
    assert days_since(ledger, time.time()) > 365


@pytest.mark.parametrize(("by", "note"), [("", "x"), (" ", "x"), ("a" * 300, "x"), ("a", "x" * 20_000)])
def test_a_review_without_a_name_or_with_a_book_is_refused(run: Run, by: str, note: str) -> None:
    status, _, err = run("ledger", "review", "--by", by, "--note", note)
    assert status == 2, err
    assert msgspec.json.decode(run("ledger", "reviews", "--json")[1])["reviews"] == []
