"""Search, reads and what was said, over HTTP and on the command line, on a real server."""

from __future__ import annotations

import json
import os
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import pytest

from rempart.bench.running import Running, rempart, running
from rempart.ledger.keys.keystore import Keystore
from rempart.ledger.reading.find import Found, find, newest_first

FOUND_S: Final = 20.0
FOUR_EYES: Final = {"REMPART_LEDGER_FOUR_EYES": "true"}


def ask(site: Running, path: str, key: str, body: object = None, **headers: str) -> tuple[int, dict[str, Any]]:
    """Status and answer."""
    status, answer, _ = _asked(site, path, key, body, **headers)
    return status, answer


def _asked(
    site: Running, path: str, key: str, body: object = None, **headers: str
) -> tuple[int, dict[str, Any], dict[str, str]]:
    given = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(site.url + path, data=data, headers=given)) as answer:
            return answer.status, json.loads(answer.read()), dict(answer.headers)
    except urllib.error.HTTPError as refused:
        return refused.code, json.loads(refused.read()), dict(refused.headers)


def chat(site: Running, said: str, model: str = "") -> str:
    """Say it; the id of the exchange. A `model` that does not exist is refused."""
    body = {"model": model or site.model, "max_tokens": 4, "messages": [{"role": "user", "content": said}]}
    status, _, headers = _asked(site, "/v1/chat/completions", site.key, body)
    assert status == (404 if model else 200)
    return headers["x-rempart-exchange"]


def search(site: Running, query: str, key: str = "") -> tuple[int, dict[str, Any]]:
    return ask(site, f"/rempart/v1/ledger/search?q={quote(query)}", key or site.key)


def until(condition: Callable[[], Any]) -> Any:
    """What it says once it says something. Raises `TimeoutError`."""
    end = time.monotonic() + FOUND_S
    while not (found := condition()):
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.05)
    return found


def indexed(site: Running, word: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = until(lambda: search(site, word)[1].get("results"))
    return found


def made(site: Running, role: str, *options: str) -> str:
    told = rempart("key", "create", "--name", role, "--role", role, *options, data=site.data)
    return told.stdout.strip()


def reads(site: Running) -> list[dict[str, Any]]:
    """The records of reads, the newest first."""
    return [fields for _, fields in newest_first(site.data / "ledger") if fields["type"] == "read"]


def opened(site: Running, read: dict[str, Any]) -> dict[str, Any]:
    """What a read asked for."""
    [found] = find(site.data / "ledger", read["exchange"], Keystore.open(site.data / "keys"))
    assert isinstance(found, Found)
    body: dict[str, Any] = found.body
    return body


def index_process(site: Running) -> int | None:
    children = Path(f"/proc/{site.process.pid}/task").glob("*/children")
    for child in " ".join(path.read_text() for path in children).split():
        try:
            if b"rempart.ledger.search.following" in Path(f"/proc/{child}/cmdline").read_bytes():
                return int(child)
        except FileNotFoundError:
            continue
    return None


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    data = tmp_path_factory.mktemp("audited") / "data"
    with running(data, environment={"REMPART_LEDGER_INDEX_S": "0.2"}) as server:
        yield server


def test_a_word_that_was_said_is_found_and_the_search_is_an_entry(audited: Running) -> None:
    exchange = chat(audited, "The invoice of Zanzibar, s'il vous pla\u00eet.")
    [hit] = indexed(audited, '"invoice of zanzibar" PLAIT outcome:ok')
    assert (hit["exchange"], hit["model"], hit["outcome"], hit["snippet"]) == (exchange, audited.model, "ok", "")
    newest = reads(audited)[0]
    assert (newest["verb"], newest["role"], newest["found"], newest["bodies"]) == ("search", "admin", 1, 0)
    assert newest["key"] == audited.key.split("_")[1]
    assert newest["class"] == "audit"
    assert "zanzibar" not in json.dumps(newest)
    assert opened(audited, newest) == {"query": '"invoice of zanzibar" PLAIT outcome:ok', "reason": ""}


def test_an_answer_is_found_by_its_question_and_shown_with_its_proofs(audited: Running) -> None:
    exchange = chat(audited, "Tell me of the perihelion.")
    [hit] = indexed(audited, "perihelion")
    status, shown = ask(audited, f"/rempart/v1/ledger/exchanges/{exchange}", audited.key)
    assert (status, [one["index"] for one in shown["entries"]]) == (200, [hit["request"], hit["index"]])
    assert [one["fields"]["type"] for one in shown["entries"]] == ["request", "response"]
    assert [json.loads(one["entry"])["exchange"] for one in shown["proofs"]] == [exchange, exchange]
    assert "perihelion" not in json.dumps(shown)
    assert (reads(audited)[0]["verb"], reads(audited)[0]["about"]) == ("show", exchange)


def test_a_users_key_is_refused_and_nothing_is_told(audited: Running) -> None:
    exchange = chat(audited, "A word: quicksilver.")
    indexed(audited, "quicksilver")
    user = made(audited, "user")
    before = len(reads(audited))
    for path, body in (
        ("search?q=quicksilver", None),
        (f"exchanges/{exchange}", None),
        (f"exchanges/{exchange}/bodies", {"reason": "curious"}),
    ):
        status, told = ask(audited, f"/rempart/v1/ledger/{path}", user, body)
        assert (status, told["error"]["code"]) == (403, "forbidden")
    assert len(reads(audited)) == before


def test_an_admin_sees_no_body_and_an_auditor_does_for_a_reason(audited: Running) -> None:
    exchange = chat(audited, "Remember the gyroscope.")
    path = f"/rempart/v1/ledger/exchanges/{exchange}/bodies"
    until(lambda: ask(audited, f"/rempart/v1/ledger/exchanges/{exchange}", audited.key)[0] == 200)
    assert ask(audited, path, audited.key, {"reason": "curious"})[0] == 403
    auditor = made(audited, "auditor", "--owner", "Grace Hopper")
    for nothing in ({"reason": "  "}, {}, {"reason": "r", "more": 1}, {"reason": "r" * 2000}, ["r"]):
        assert ask(audited, path, auditor, nothing)[0] == 400
    status, told = ask(audited, path, auditor, {"reason": "complaint 2026-114"})
    assert (status, [one["type"] for one in told["bodies"]]) == (200, ["request", "response"])
    assert told["bodies"][0]["body"]["request"]["messages"][0]["content"] == "Remember the gyroscope."
    newest = reads(audited)[0]
    assert (newest["verb"], newest["bodies"], newest["about"]) == ("bodies", 2, exchange)
    assert newest["actor"].startswith("a_")
    assert opened(audited, newest)["reason"] == "complaint 2026-114"


def test_a_search_shows_where_the_words_stand_to_auditors_for_a_reason(audited: Running) -> None:
    exchange = chat(audited, "Who wound the orrery?")
    indexed(audited, "orrery")
    path, asked = "/rempart/v1/ledger/search", {"q": "orrery", "reason": "complaint 2026-115"}
    before = len(reads(audited))
    for role in ("admin", "user"):
        status, told = ask(audited, path, made(audited, role), asked)
        assert (status, told["error"]["code"]) == (403, "forbidden")
    auditor = made(audited, "auditor", "--owner", "Grace Hopper")
    for wrong in ({"q": "orrery"}, {**asked, "reason": " "}, {**asked, "limit": 0}, {**asked, "below": -1}, ["q"]):
        assert ask(audited, path, auditor, wrong)[0] == 400
    assert ask(audited, path, auditor, {**asked, "q": "nosuch:field"})[0] == 400
    assert len(reads(audited)) == before
    status, told = ask(audited, path, auditor, asked)
    assert (status, [hit["exchange"] for hit in told["results"]]) == (200, [exchange])
    assert told["results"][0]["snippet"] == "Who wound the orrery?"
    newest = reads(audited)[0]
    assert (newest["verb"], newest["role"], newest["found"], newest["bodies"]) == ("search", "auditor", 1, 1)
    assert opened(audited, newest) == {"query": "orrery", "reason": "complaint 2026-115"}
    below = {**asked, "below": told["results"][0]["index"]}
    assert ask(audited, path, auditor, below)[1]["results"] == []
    assert ask(audited, f"{path}?q=orrery", auditor)[1]["results"][0]["snippet"] == ""


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("search", 400, "invalid_request"),
        ("search?q=a&q=b", 400, "invalid_request"),
        ("search?q=nosuch:field", 400, "invalid_request"),
        ("search?q=word&limit=0", 400, "invalid_request"),
        ("search?q=word&below=-1", 400, "invalid_request"),
        (f"exchanges/{'0' * 32}", 404, "not_found"),
        ("exchanges/nonsense", 404, "not_found"),
        ("nothing", 404, "not_found"),
    ],
)
def test_what_cannot_be_answered_is_said(audited: Running, path: str, status: int, code: str) -> None:
    got, told = ask(audited, f"/rempart/v1/ledger/{path}", audited.key)
    assert (got, told["error"]["code"]) == (status, code)


def test_what_there_is_not_is_an_entry_too(audited: Running) -> None:
    gone = "0" * 31 + "1"
    assert ask(audited, f"/rempart/v1/ledger/exchanges/{gone}", audited.key)[0] == 404
    assert (reads(audited)[0]["about"], reads(audited)[0]["found"]) == (gone, 0)


def test_the_index_process_comes_back_when_it_was_killed(audited: Running) -> None:
    first = until(lambda: index_process(audited))
    os.kill(first, signal.SIGKILL)
    exchange = chat(audited, "After the thunderclap.")
    assert [hit["exchange"] for hit in indexed(audited, "thunderclap")] == [exchange]
    assert index_process(audited) not in (None, first)


def test_nothing_that_was_said_can_be_read_in_the_index(audited: Running) -> None:
    chat(audited, "The password is heliotrope.")
    indexed(audited, "heliotrope")
    files = [path for path in (audited.data / "ledger" / "index").rglob("*") if path.is_file()]
    assert any(path.suffix == ".run" for path in files)
    for path in files:
        data = path.read_bytes().lower()
        assert not any(word in data for word in (b"heliotrope", b"password", audited.model.encode(), b"messages"))


def test_the_command_line_finds_shows_and_records(audited: Running, tmp_path: Path) -> None:
    exchange = chat(audited, "Where does the albatross sleep?")
    [hit] = indexed(audited, "albatross")
    found = rempart("ledger", "search", "albatross", "--proofs", str(tmp_path), data=audited.data)
    assert found.returncode == 0, found.stderr
    assert exchange in found.stdout
    assert "sleep" not in found.stdout
    assert "--reason TEXT" in found.stderr
    assert {path.name for path in tmp_path.iterdir()} == {f"{hit[name]}.tlog-proof" for name in ("index", "request")}
    assert (reads(audited)[0]["role"], reads(audited)[0]["key"], reads(audited)[0]["actor"]) == (
        "operator",
        "operator",
        "",
    )
    key = {"REMPART_KEY": made(audited, "auditor", "--owner", "Grace")}
    found = rempart("ledger", "search", "albatross", "--reason", "why", data=audited.data, environment=key)
    assert "Where does the albatross sleep?" in found.stdout
    assert (reads(audited)[0]["verb"], reads(audited)[0]["role"], reads(audited)[0]["bodies"]) == (
        "search",
        "auditor",
        1,
    )


@pytest.mark.parametrize("role", ["admin", "user"])
def test_on_the_command_line_too_only_auditors_are_shown_what_was_said(audited: Running, role: str) -> None:
    exchange = chat(audited, "Nobody reads of the marmalade.")
    indexed(audited, "marmalade")
    key = {"REMPART_KEY": made(audited, role)}
    for command in (("show", exchange), ("search", "marmalade")):
        told = rempart("ledger", *command, "--reason", "why", data=audited.data, environment=key)
        assert (told.returncode, told.stdout) == (2, "")
        assert "may not do this" in told.stderr
    told = rempart("ledger", "show", exchange, "--reason", "why", data=audited.data, environment={"REMPART_KEY": ""})
    assert (told.returncode, told.stdout) == (2, "")


def test_four_eyes_take_two_people(tmp_path: Path) -> None:
    with running(tmp_path / "data", environment={**FOUR_EYES, "REMPART_LEDGER_INDEX_S": "0.2"}) as site:
        exchange = chat(site, "For two pairs of eyes.")
        ada, also_ada, grace = (made(site, "auditor", "--owner", owner) for owner in ("Ada", "Ada", "Grace"))
        path = f"/rempart/v1/ledger/exchanges/{exchange}/bodies"
        until(lambda: ask(site, f"/rempart/v1/ledger/exchanges/{exchange}", ada)[0] == 200)
        assert ask(site, path, ada, {"reason": "r"})[0] == 403
        for second in (ada, also_ada, site.key):
            assert ask(site, path, ada, {"reason": "r"}, x_rempart_second=second)[0] == 403
        assert ask(site, path, ada, {"reason": "r"}, x_rempart_second="rp_nonsense")[0] == 401
        assert ask(site, path, ada, {"reason": "r"}, x_rempart_second=grace)[0] == 200
        places, asked = "/rempart/v1/ledger/search", {"q": "eyes", "reason": "r"}
        assert ask(site, places, ada, asked)[0] == 403
        assert ask(site, places, ada, asked, x_rempart_second=also_ada)[0] == 403
        assert ask(site, places, ada, asked, x_rempart_second=grace)[0] == 200
        assert (reads(site)[0]["verb"], reads(site)[0]["second"]) == ("search", grace.split("_")[1])
        assert (reads(site)[0]["key"], reads(site)[0]["second"]) == (ada.split("_")[1], grace.split("_")[1])
        file, other = tmp_path / "ada", tmp_path / "grace"
        file.write_text(ada)
        other.write_text(grace)
        shown = ("ledger", "show", exchange, "--reason", "r", "--key-file", str(file))
        assert rempart(*shown, data=site.data).returncode == 2
        assert "two pairs of eyes" in rempart(*shown, "--second-key-file", str(other), data=site.data).stdout
