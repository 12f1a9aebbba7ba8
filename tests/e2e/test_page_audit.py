"""The page at `/audit` in a real Chromium against a real server: what auditors and admins do with it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Route, expect
from tests.e2e.conftest import LEDGER_MS, Visit, Visits
from tests.e2e.test_search import chat, indexed, made, reads

from rempart.bench.running import Running
from rempart.ledger.log.policy import Policy
from rempart.ledger.log.proof import check, parse

SAID = "Does the lighthouse keeper <b>sleep</b>? [x](javascript:1)"


@pytest.fixture(scope="module")
def auditor(site: Running) -> str:
    return made(site, "auditor", "--owner", "Grace Hopper")


@pytest.fixture(scope="module")
def exchange(site: Running) -> str:
    """Of an exchange that is found by `lighthouse`."""
    id_ = chat(site, SAID)
    indexed(site, "lighthouse")
    return id_


Enter = Callable[..., Visit]


@pytest.fixture
def enter(visits: Visits, site: Running) -> Enter:
    """Opens the page, and signs in where a key is given."""

    def _enter(key: str = "", **options: Any) -> Visit:
        visit = visits(**options)
        visit.page.goto(f"{site.url}/audit")
        if key:
            visit.enter(key)
            expect(visit.page.locator("#query")).to_be_focused()
        return visit

    return _enter


def search(visit: Visit, words: str) -> None:
    visit.page.locator("#query").fill(words)
    visit.page.locator("#query").press("Enter")


def opened(visit: Visit, exchange: str, words: str = "lighthouse") -> None:
    search(visit, words)
    visit.page.get_by_role("button", name=exchange).click()
    expect(visit.page.locator("#view-title")).to_be_focused()
    expect(visit.page.locator(".ledger-line.done")).to_be_visible(timeout=LEDGER_MS)


# Signing in


def test_it_takes_a_key_that_may_read_the_ledger(enter: Enter, site: Running, auditor: str) -> None:
    visit = enter()
    expect(visit.page.locator("#key")).to_be_focused()
    visit.enter("")
    expect(visit.page.get_by_role("alert")).to_have_text("Enter an API key.")
    visit.enter("rp_wrong")
    expect(visit.page.get_by_role("alert")).to_contain_text("This key is not accepted")
    visit.enter(made(site, "user"))
    expect(visit.page.get_by_role("alert")).to_contain_text("It takes a key of the role auditor or admin.")
    expect(visit.page.locator("#list")).to_be_hidden()
    visit.enter(auditor)
    expect(visit.page.locator("#role")).to_contain_text("as an auditor")
    visit.forgive("401 (Unauthorized)")
    visit.forgive("403 (Forbidden)")


def test_nothing_is_kept(enter: Enter, exchange: str, auditor: str) -> None:
    visit = enter(auditor)
    opened(visit, exchange)
    stored = "JSON.stringify([{...sessionStorage}, {...localStorage}, document.cookie, location.href])"
    kept = visit.page.evaluate(stored)
    assert auditor not in kept
    assert "lighthouse" not in kept
    assert exchange not in kept
    visit.page.reload()
    expect(visit.page.locator("#key")).to_be_focused()
    expect(visit.page.locator("#key")).to_have_value("")
    expect(visit.page.locator("#list")).to_be_hidden()


def test_signing_out_leaves_nothing_on_the_page(enter: Enter, exchange: str, auditor: str) -> None:
    visit = enter(auditor)
    opened(visit, exchange)
    visit.page.locator("#reason").fill("complaint 7")
    visit.page.get_by_role("button", name="Show what was said").click()
    expect(visit.page.locator("#bodies")).to_contain_text("lighthouse")
    visit.page.get_by_role("button", name="Sign out").click()
    expect(visit.page.locator("#key")).to_be_focused()
    html = visit.page.content()
    assert auditor not in html
    assert exchange not in html
    assert "lighthouse" not in html
    assert visit.page.locator("#query").input_value() == visit.page.locator("#reason").input_value() == ""


# Searching


def test_an_exchange_is_found_and_its_proof_checked(enter: Enter, site: Running, exchange: str) -> None:
    visit = enter(site.key)
    expect(visit.page.locator("#role")).to_contain_text("as an administrator")
    search(visit, '"lighthouse keeper"')
    expect(visit.page.locator("#state")).to_have_text("1 exchange")
    visit.page.get_by_role("button", name=exchange).click()
    expect(visit.page.locator("#view-title")).to_have_text(f"Exchange {exchange}")
    expect(visit.page.locator(".ledger-line")).to_have_text(re.compile("proof checked$"), timeout=LEDGER_MS)
    expect(visit.page.locator("#entries h3")).to_have_text(
        [re.compile(r"Entry \d+ · request"), re.compile(r"Entry \d+ · response"), "Proof"]
    )
    expect(visit.page.locator("#said-not")).to_be_visible()
    expect(visit.page.locator("#reason-form")).to_be_hidden()
    assert "lighthouse" not in visit.page.locator("#view").inner_text()
    visit.page.get_by_role("button", name="Back to the list").click()
    expect(visit.page.get_by_role("button", name=exchange)).to_be_focused()
    assert reads(site)[0]["verb"] == "show"


def test_the_filters_are_part_of_the_query(enter: Enter, site: Running, exchange: str) -> None:
    visit = enter(site.key)
    day = visit.page.evaluate("new Date().toISOString().slice(0, 10)")
    page = visit.page
    page.locator("#from").fill("2020-02-28")
    page.locator("#to").fill(day)
    page.locator("#model").fill(site.model)
    page.locator("#outcome").select_option("ok")
    with page.expect_request("**/search?*") as request:
        search(visit, "lighthouse")
    asked = page.evaluate("url => new URL(url).searchParams.get('q')", request.value.url)
    after = page.evaluate("d => new Date(Date.parse(d) + 864e5).toISOString().slice(0, 10)", day)
    assert asked == f'lighthouse after:2020-02-28 before:{after} model:"{site.model}" outcome:ok'
    expect(page.get_by_role("button", name=exchange)).to_be_visible()
    page.locator("#outcome").select_option("failed")
    search(visit, "lighthouse")
    expect(page.locator("#state")).to_contain_text("Nothing was found.")
    expect(page.locator("#scroll")).to_be_hidden()
    page.locator("#to").fill("2020-02-01")
    search(visit, "lighthouse")
    expect(page.get_by_role("alert")).to_have_text("“From” lies after “To”.")


def test_what_is_wrong_with_a_search_is_said(enter: Enter, site: Running) -> None:
    visit = enter(site.key)
    search(visit, "  ")
    expect(visit.page.get_by_role("alert")).to_have_text("Enter a word, or choose a filter.")
    search(visit, '"open')
    expect(visit.page.get_by_role("alert")).to_contain_text("This search cannot be understood.")
    expect(visit.page.get_by_role("alert")).to_contain_text("The quotation mark at character 1 is not closed.")
    visit.forgive("400 (Bad Request)")


def test_of_a_refused_exchange_the_one_entry_and_its_error_are_shown(enter: Enter, site: Running, auditor: str) -> None:
    refused = chat(site, "Where is the drowned cathedral?", model="nowhere")
    indexed(site, "cathedral")
    visit = enter(auditor)
    opened(visit, refused, "cathedral outcome:refused")
    expect(visit.page.locator(".ledger-line")).to_have_text(re.compile(r"nos?\.\s\d+ · proof checked$"))
    expect(visit.page.locator(".ledger-line")).to_contain_text("· no.")
    visit.page.locator("#reason").fill("complaint 7")
    visit.page.locator("#reason").press("Enter")
    expect(visit.page.locator("#bodies .who").last).to_have_text("Error")
    expect(visit.page.locator("#bodies .spoken").last).to_contain_text("There is no model 'nowhere' here.")


def test_when_the_ledger_cannot_record_it_is_said_and_nothing_shown(enter: Enter, site: Running) -> None:
    visit = enter(site.key)
    error = {"error": {"message": "No room.", "type": "", "param": None, "code": "ledger_unavailable"}}

    def refuse(route: Route) -> None:
        route.fulfill(status=503, headers={"content-type": "application/json"}, body=json.dumps(error))

    visit.page.route("**/rempart/v1/ledger/search*", refuse)
    search(visit, "lighthouse")
    expect(visit.page.get_by_role("alert")).to_contain_text("the ledger cannot record at the moment")
    expect(visit.page.locator("#scroll")).to_be_hidden()
    visit.forgive("503 (Service Unavailable)")


def test_older_ones_are_added_to_the_list(enter: Enter, site: Running) -> None:
    visit = enter(site.key)
    hit = {"type": "response", "model": "m", "outcome": "ok", "actor": "a_1", "role": "user", "key": "k"}

    def page(route: Route) -> None:
        below = int(re.findall(r"below=(\d+)", route.request.url + "&below=100")[0])
        hits = [
            {**hit, "index": at, "time": "2026-11-25T00:00:00.000000Z", "exchange": f"{at:032x}"}
            for at in range(below - 1, below - 51, -1)
        ]
        rest = {"behind": 0, "missing": 0, "destroyed": 0, "unreadable": 0}
        route.fulfill(json={"results": hits, "next": 50 if below == 100 else None, **rest})

    visit.page.route("**/rempart/v1/ledger/search*", page)
    search(visit, "word")
    expect(visit.page.locator("#state")).to_have_text("The newest 50 exchanges; there are more")
    visit.page.get_by_role("button", name="Show older ones").click()
    expect(visit.page.locator("#results tr")).to_have_count(100)
    expect(visit.page.locator("#results button").nth(50)).to_be_focused()
    expect(visit.page.locator("#more")).to_be_hidden()


def test_a_key_that_was_revoked_ends_the_session(enter: Enter, site: Running, exchange: str, auditor: str) -> None:
    visit = enter(auditor)
    opened(visit, exchange)
    error = {"error": {"message": "", "type": "", "param": None, "code": "invalid_api_key"}}

    def refuse(route: Route) -> None:
        route.fulfill(status=401, headers={"content-type": "application/json"}, body=json.dumps(error))

    visit.page.route("**/bodies", refuse)
    visit.page.locator("#reason").fill("why")
    visit.page.locator("#reason").press("Enter")
    expect(visit.page.locator("#key")).to_be_focused()
    expect(visit.page.locator("#gate-error")).to_contain_text("This key is not accepted")
    assert exchange not in visit.page.content()
    visit.forgive("401 (Unauthorized)")


# What was said


def test_an_auditor_states_a_reason_and_sees_what_was_said_as_text(
    enter: Enter, site: Running, exchange: str, auditor: str
) -> None:
    visit = enter(auditor)
    opened(visit, exchange)
    page = visit.page
    page.get_by_role("button", name="Show what was said").click()
    expect(page.get_by_role("alert").last).to_have_text("State the reason.")
    expect(page.locator("#reason")).to_be_focused()
    page.locator("#reason").fill("complaint 2026-114")
    page.locator("#reason").press("Enter")
    expect(page.locator("#bodies .spoken").first).to_have_text(SAID)
    expect(page.locator("#bodies .who")).to_have_text(["Question", "Answer"])
    assert page.locator("#bodies b, #bodies a").count() == 0
    expect(page.locator("#bodies")).to_be_focused()
    assert (reads(site)[0]["verb"], reads(site)[0]["about"], reads(site)[0]["bodies"]) == ("bodies", exchange, 2)


def test_a_list_shows_auditors_where_the_words_stand_for_a_reason(
    enter: Enter, site: Running, exchange: str, auditor: str
) -> None:
    visit = enter(auditor)
    search(visit, "lighthouse")
    expect(visit.page.get_by_role("button", name=exchange)).to_be_visible()
    expect(visit.page.locator("#results .told")).to_have_count(0)
    visit.page.locator("#places-reason").fill("complaint 2026-116")
    search(visit, "lighthouse")
    expect(visit.page.locator("#results .told").first).to_have_text(SAID)
    newest = reads(site)[0]
    assert (newest["verb"], newest["role"], newest["bodies"] > 0) == ("search", "auditor", True)
    visit.page.get_by_role("button", name="Sign out").click()
    assert "lighthouse" not in visit.page.content()
    assert visit.page.locator("#places-reason").input_value() == ""
    admin = enter(site.key)
    expect(admin.page.locator("#places")).to_be_hidden()


def test_where_four_eyes_are_needed_a_list_asks_for_a_second_key(enter: Enter, exchange: str, auditor: str) -> None:
    visit = enter()
    visit.page.route(
        "**/ledger/reader",
        lambda route: route.fulfill(json={"role": "auditor", "bodies": True, "four_eyes": True}),
    )
    visit.enter(auditor)
    visit.page.locator("#places-reason").fill("why")
    search(visit, "lighthouse")
    expect(visit.page.locator("#search-error")).to_have_text("A second auditor enters their key here.")
    expect(visit.page.locator("#places-second")).to_be_focused()
    visit.page.locator("#places-second").fill("rp_second")
    with visit.page.expect_request("**/ledger/search") as asked:
        search(visit, "lighthouse")
    assert asked.value.headers["x-rempart-second"] == "rp_second"
    assert json.loads(asked.value.post_data or "") == {"q": "lighthouse", "reason": "why"}


def test_where_four_eyes_are_needed_a_second_key_is_asked_for(
    enter: Enter, site: Running, exchange: str, auditor: str
) -> None:
    visit = enter()
    visit.page.route(
        "**/rempart/v1/ledger/reader",
        lambda route: route.fulfill(json={"role": "auditor", "bodies": True, "four_eyes": True}),
    )
    visit.enter(auditor)
    opened(visit, exchange)
    visit.page.locator("#reason").fill("why")
    visit.page.locator("#reason").press("Enter")
    expect(visit.page.locator("#reason-error")).to_have_text("A second auditor enters their key here.")
    visit.page.locator("#second").fill("rp_second")
    with visit.page.expect_request("**/bodies") as request:
        visit.page.locator("#second").press("Enter")
    assert request.value.headers["x-rempart-second"] == "rp_second"
    expect(visit.page.locator("#second")).to_have_value("")


# Proofs


def test_the_proof_that_is_saved_holds_without_us(
    enter: Enter, site: Running, exchange: str, auditor: str, tmp_path: Path
) -> None:
    visit = enter(auditor)
    opened(visit, exchange)
    with visit.page.expect_download() as download:
        visit.page.get_by_role("button", name=re.compile("Save proof of entry")).first.click()
    assert re.fullmatch(r"\d+\.tlog-proof", download.value.suggested_filename)
    path = tmp_path / "proof"
    download.value.save_as(path)
    proof = parse(path.read_bytes())
    assert json.loads(proof.extra)["exchange"] == exchange
    check(proof, proof.extra, Policy.parse(f"log {site.vkey}\nquorum none\n".encode()))


def test_a_forged_entry_is_seen_by_the_browser(enter: Enter, site: Running, exchange: str) -> None:
    visit = enter(site.key)

    def forge(route: Route) -> None:
        response = route.fetch()
        trace = response.json()
        trace["proofs"][1]["entry"] = trace["proofs"][1]["entry"].replace('"ok"', '"no"')
        route.fulfill(response=response, json=trace)

    visit.page.route(f"**/rempart/v1/ledger/exchanges/{exchange}", forge)
    search(visit, "lighthouse")
    visit.page.get_by_role("button", name=exchange).click()
    expect(visit.page.locator(".ledger-line.failed")).to_contain_text("proof does not hold", timeout=LEDGER_MS)


# For everybody


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1100])
def test_everything_can_be_read_and_fits(enter: Enter, exchange: str, auditor: str, scheme: str, width: int) -> None:
    visit = enter(color_scheme=scheme, viewport={"width": width, "height": 800}, locale="fr-FR")
    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert (visit.poor(), visit.page.evaluate(wide)) == ([], 0)
    visit.enter(auditor)
    visit.page.get_by_text("Comment chercher").click()
    assert (visit.poor(), visit.page.evaluate(wide)) == ([], 0)
    search(visit, "lighthouse")
    expect(visit.page.locator("#results tr")).to_have_count(1)
    assert (visit.poor(), visit.page.evaluate(wide)) == ([], 0)
    visit.page.get_by_role("button", name=exchange).click()
    expect(visit.page.locator(".ledger-line.done")).to_be_visible(timeout=LEDGER_MS)
    visit.page.locator("#reason").fill("plainte 7")
    visit.page.locator("#reason").press("Enter")
    expect(visit.page.locator("#bodies .spoken").first).to_be_visible()
    assert (visit.poor(), visit.page.evaluate(wide)) == ([], 0)


def test_it_works_with_the_keyboard_alone(enter: Enter, exchange: str, auditor: str) -> None:
    visit = enter()
    keyboard = visit.page.keyboard
    keyboard.type(auditor)
    keyboard.press("Enter")
    expect(visit.page.locator("#query")).to_be_focused()
    keyboard.type("lighthouse")
    keyboard.press("Enter")
    expect(visit.page.locator("#results tr")).to_have_count(1)
    while visit.page.evaluate("document.activeElement.textContent") != exchange:
        keyboard.press("Tab")
    keyboard.press("Enter")
    expect(visit.page.locator("#view-title")).to_be_focused()


def test_the_language_can_be_changed_at_any_time(enter: Enter, exchange: str, auditor: str) -> None:
    visit = enter(auditor)
    opened(visit, exchange)
    visit.page.get_by_role("button", name="Français").click()
    expect(visit.page.locator("#view-title")).to_have_text(f"Échange {exchange}")
    expect(visit.page.locator("#entries h3").first).to_have_text(re.compile(r"Entrée \d+ · demande"))
    expect(visit.page.get_by_role("button", name="Se déconnecter")).to_be_visible()
