"""The page in a real Chromium: the line beneath an answer, and the browser's own check of the proof."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

import pytest
from playwright.sync_api import Route, expect
from tests.e2e.conftest import LEDGER_MS, Visit, Visits

from rempart.bench.running import Running, rempart

DONE: Final = re.compile(r"^Recorded in the ledger · nos\.\s\d+(–|, )\d+ · proof checked$")


def altered(visit: Visit, alter: Callable[[dict[str, Any]], None]) -> None:
    """The server's next accounts of an exchange are these."""

    def answer(route: Route) -> None:
        response = route.fetch()
        trace = response.json()
        if trace.get("proofs"):
            alter(trace)
        route.fulfill(response=response, json=trace)

    visit.page.route("**/rempart/v1/exchanges/*", answer)


def asked(visit: Visit) -> str:
    """Ask, wait for the whole answer; the id of the exchange."""
    with visit.page.expect_response("**/v1/chat/completions") as response:
        visit.ask()
    visit.finished()
    return response.value.headers["x-rempart-exchange"]


# What it shows


def test_one_line_tells_where_it_stands_and_that_the_browser_checked_it(talk: Visit, site: Running) -> None:
    exchange = asked(talk)
    card = talk.recorded()
    trace = talk.page.request.get(
        f"{site.url}/rempart/v1/exchanges/{exchange}", headers={"authorization": f"Bearer {site.key}"}
    ).json()
    first, last = (entry["index"] for entry in trace["entries"])
    numbers = f"{first}–{last}" if last == first + 1 else f"{first}, {last}"  # a meter may be recorded in between
    expect(card.locator(".ledger-line")).to_have_text(f"Recorded in the ledger · nos. {numbers} · proof checked")
    expect(card.locator(".ledger-inside")).to_be_hidden()
    card.get_by_text("Proof details").click()
    shown = {one.get_attribute("data-field"): one.text_content() for one in card.locator("[data-field]").all()}
    assert next(iter(shown)) == "exchange"
    assert shown["exchange"] == exchange
    assert (shown["request"], shown["response"]) == (str(first), str(last))
    assert shown["origin"] == trace["checkpoint"]["origin"]
    assert int(shown["size"] or "") > last
    assert (shown["leaf-request"], shown["leaf-response"]) == tuple(one["leaf_hash"] for one in trace["entries"])


@pytest.mark.parametrize(("name", "field"), [("Copy id", "exchange"), ("Copy root", "root")])
def test_the_id_and_the_root_can_be_copied(talk: Visit, name: str, field: str) -> None:
    talk.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    asked(talk)
    card = talk.recorded()
    card.get_by_text("Proof details").click()
    card.get_by_role("button", name=name).click()
    expect(card.get_by_role("button", name="Copied")).to_be_focused()
    shown = card.locator(f'[data-field="{field}"]').text_content()
    assert talk.page.evaluate("navigator.clipboard.readText()") == shown


def test_entries_that_are_apart_are_not_shown_as_a_run(talk: Visit) -> None:
    """What lies between two entries of one exchange is somebody else's."""
    script = """async () => {
      const { showLedger } = await import("/static/ledger.js");
      const entry = (index, type) => ({ index, type, leaf_hash: "00" });
      const checkpoint = { origin: "o", size: 9, root: "00" };
      const entries = [entry(3, "request"), entry(7, "response")];
      window.fetch = async () => Response.json({ exchange: "x", integrated: true, entries, proofs: [], checkpoint });
      const card = document.createElement("div");
      Object.defineProperty(crypto, "subtle", { value: undefined });
      await showLedger(card, "x", "rp_x", new AbortController().signal);
      return card.querySelector(".ledger-line").textContent;
    }"""
    assert "3, 7" in talk.page.evaluate(script)


@pytest.mark.parametrize("locale", ["en-GB", "fr-FR"])
def test_it_takes_less_room_than_the_answer(visits: Visits, site: Running, locale: str) -> None:
    visit = visits(locale=locale, viewport={"width": 360, "height": 640})
    visit.enter(site.key)
    asked(visit)
    line = visit.recorded().bounding_box()
    answer = visit.turn.locator(".answer").bounding_box()
    assert line is not None
    assert answer is not None
    assert line["height"] <= 48
    assert line["height"] < answer["height"]


# What the browser checks


def _another_hash(trace: dict[str, Any]) -> None:
    trace["proofs"][0]["hashes"][0] = "00" * 32


def _another_entry(trace: dict[str, Any]) -> None:
    trace["proofs"][0]["entry"] = trace["proofs"][0]["entry"].replace('"guide"', '"other"')


def _another_leaf(trace: dict[str, Any]) -> None:
    trace["entries"][0]["leaf_hash"] = "00" * 32


def _another_root(trace: dict[str, Any]) -> None:
    text, size, _, *rest = trace["proofs"][0]["checkpoint"].split("\n")
    trace["proofs"][0]["checkpoint"] = "\n".join([text, size, "A" * 43 + "=", *rest])


def _another_signature(trace: dict[str, Any]) -> None:
    head, last = trace["proofs"][0]["checkpoint"].rstrip("\n").rsplit(" ", 1)
    trace["proofs"][0]["checkpoint"] = f"{head} {last[:40]}{'B' if last[40] == 'A' else 'A'}{last[41:]}\n"


def _another_type(trace: dict[str, Any]) -> None:
    trace["entries"][0]["type"] = "response"


def _nothing(trace: dict[str, Any]) -> None:
    trace["proofs"].clear()
    trace["entries"] = [{"index": 0, "type": "response", "leaf_hash": "00" * 32}]


def _no_proof(trace: dict[str, Any]) -> None:
    trace["proofs"].pop()


@pytest.mark.parametrize(
    "forge",
    [
        *(_another_hash, _another_entry, _another_leaf, _another_root, _another_signature),
        *(_another_type, _nothing, _no_proof),
    ],
)
def test_a_forged_proof_is_seen_by_the_browser(talk: Visit, forge: Callable[[dict[str, Any]], None]) -> None:
    altered(talk, forge)
    talk.ask()
    talk.finished()
    expect(talk.turn.locator(".ledger .ledger-line.failed")).to_have_text(
        "The ledger’s proof does not hold. Tell your security officer.", timeout=LEDGER_MS
    )
    expect(talk.page.get_by_role("alert")).to_have_text(re.compile("Tell your security officer"))
    expect(talk.turn.locator(".ledger-line")).to_be_in_viewport()
    talk.turn.get_by_text("Proof details").click()
    expect(talk.turn.locator('[data-field="exchange"]')).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_broken_proof_can_be_read_on_a_phone(visits: Visits, site: Running, scheme: str) -> None:
    visit = visits(color_scheme=scheme, viewport={"width": 360, "height": 640}, locale="fr-FR")
    altered(visit, _another_hash)
    visit.enter(site.key)
    asked(visit)
    line = visit.turn.locator(".ledger-line.failed")
    expect(line).to_have_text(re.compile("^La preuve du registre n’est pas valable"), timeout=LEDGER_MS)
    expect(line).to_be_in_viewport(ratio=1)
    assert visit.poor() == []


def test_the_proof_of_another_exchange_is_no_proof_of_this_one(talk: Visit) -> None:
    """Whole and true, but of an earlier exchange: as if the last one had never been recorded."""
    earlier = asked(talk)
    talk.recorded()

    def answer(route: Route) -> None:
        route.fulfill(response=route.fetch(url=re.sub(r"[^/]+$", earlier, route.request.url)))

    talk.page.route("**/rempart/v1/exchanges/*", answer)
    asked(talk)
    expect(talk.turn.locator(".ledger-line.failed")).to_contain_text("does not hold", timeout=LEDGER_MS)


def test_another_root_than_the_signed_one_is_not_shown(talk: Visit) -> None:
    altered(talk, lambda trace: trace["checkpoint"].update(root="00" * 32, size=10**6))
    asked(talk)
    card = talk.recorded()
    expect(card.locator(".ledger-line")).to_have_text(DONE)
    expect(card.locator('[data-field="root"]')).not_to_have_text("00" * 32)
    expect(card.locator('[data-field="size"]')).not_to_have_text(str(10**6))


def test_another_key_than_at_the_first_sight_is_told(talk: Visit) -> None:
    talk.page.evaluate("localStorage.setItem('ledger-key', 'somebody else')")
    asked(talk)
    expect(talk.turn.locator(".ledger-line.failed")).to_contain_text("another key", timeout=LEDGER_MS)


def test_a_log_that_changed_its_key_is_followed(talk: Visit, site: Running) -> None:
    old = rempart("ledger", "key", data=site.data).stdout.strip()
    for arguments in ([], ["--finish"]):
        assert rempart("keys", "rotate-log", *arguments, data=site.data).returncode == 0
    talk.page.evaluate("key => localStorage.setItem('ledger-key', key)", old)
    asked(talk)
    expect(talk.recorded().locator(".ledger-line")).to_have_text(DONE)
    new = rempart("ledger", "key", data=site.data).stdout.strip()
    assert talk.page.evaluate("localStorage.getItem('ledger-key')") == new != old


@pytest.mark.parametrize(
    ("alter", "why"),
    [
        (lambda trace: trace["handovers"].clear(), "another key"),
        (lambda trace: trace["handovers"][-1].update(hashes=["00" * 32]), "does not hold"),
    ],
)
def test_a_change_of_the_key_without_its_proof_is_told(
    talk: Visit, site: Running, alter: Callable[[dict[str, Any]], None], why: str
) -> None:
    old = rempart("ledger", "key", data=site.data).stdout.strip()
    for arguments in ([], ["--finish"]):
        assert rempart("keys", "rotate-log", *arguments, data=site.data).returncode == 0
    talk.page.evaluate("key => localStorage.setItem('ledger-key', key)", old)
    altered(talk, alter)
    asked(talk)
    expect(talk.turn.locator(".ledger-line.failed")).to_contain_text(why, timeout=LEDGER_MS)


# What it cannot check


def test_a_page_without_tls_says_that_it_checked_nothing(visits: Visits, site: Running) -> None:
    """Browsers hide their cryptography from such a page: that is no broken proof."""
    visit = visits("Object.defineProperty(crypto, 'subtle', { value: undefined });")
    visit.enter(site.key)
    asked(visit)
    line = visit.turn.locator(".ledger-line.waiting")
    expect(line).to_have_text(re.compile(r"^Recorded, says the server · .* · not checked here$"), timeout=LEDGER_MS)


def test_a_browser_without_ed25519_says_so(visits: Visits, site: Running) -> None:
    visit = visits(
        "crypto.subtle.importKey = async () => { throw new DOMException('not here', 'NotSupportedError'); };"
    )
    visit.enter(site.key)
    asked(visit)
    expect(visit.recorded().locator(".ledger-line")).to_contain_text("proof checked, signature not")


def test_an_exchange_the_server_no_longer_finds_keeps_its_id(talk: Visit) -> None:
    error = {"error": {"message": "No recent exchange has that id.", "code": "not_found"}}
    talk.page.route("**/rempart/v1/exchanges/*", lambda route: route.fulfill(status=404, json=error))
    exchange = asked(talk)
    card = talk.turn.locator(".ledger")
    expect(card.locator(".ledger-line.waiting")).to_contain_text("no longer finds this exchange")
    card.get_by_text("Proof details").click()
    expect(card.locator('[data-field="exchange"]')).to_have_text(exchange)
    talk.forgive("404 (Not Found)")


def test_a_ledger_that_could_not_be_asked_can_be_asked_again(talk: Visit) -> None:
    talk.page.route("**/rempart/v1/exchanges/*", lambda route: route.abort("connectionrefused"))
    asked(talk)
    expect(talk.turn.locator(".ledger-line.failed")).to_have_text("Not checked: the ledger could not be asked")
    talk.page.unroute("**/rempart/v1/exchanges/*")
    talk.turn.get_by_role("button", name="Check again").click()
    expect(talk.recorded().locator(".ledger-line")).to_have_text(DONE)
    talk.forgive("ERR_CONNECTION_REFUSED")
