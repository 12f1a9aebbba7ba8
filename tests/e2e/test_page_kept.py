"""The page in a real Chromium: what a tab keeps through a reload, and for whom."""

from __future__ import annotations

import json
import re
from typing import Final

from playwright.sync_api import Dialog, expect
from tests.e2e.conftest import ANSWER_MS, HOLD_ANSWER, LEDGER_MS, Visit, Visits, piece, sent

from rempart.bench.running import Running, rempart

# True when the browser would ask before it leaves the page.
ASKS: Final = "!window.dispatchEvent(new Event('beforeunload', { cancelable: true }))"
FULL: Final = """
const set = Storage.prototype.setItem;
Storage.prototype.setItem = function (name, value) {
  if (name === "rempart.conversation") throw new DOMException("full", "QuotaExceededError");
  set.call(this, name, value);
};
"""


def test_a_reload_brings_the_conversation_back(talk: Visit) -> None:
    talk.ask("first")
    talk.finished()
    line = talk.recorded().locator(".ledger-line").text_content()
    said = talk.turn.locator(".answer").text_content() or ""
    talk.prompt.fill("a draft")
    talk.page.reload()
    expect(talk.prompt).to_be_focused()
    expect(talk.prompt).to_have_value("a draft")
    expect(talk.page.locator("#empty")).to_be_hidden()
    expect(talk.turn.locator(".asked")).to_have_text("first")
    expect(talk.turn.locator(".answer")).to_have_text(said)
    expect(talk.recorded().locator(".ledger-line")).to_have_text(line or "")
    with talk.page.expect_request("**/v1/chat/completions") as second:
        talk.ask("second")
    assert sent(second.value)[0::2] == ["first", "second"]
    talk.finished()


def test_what_failed_comes_back_as_it_was(talk: Visit) -> None:
    talk.refused(429, "rate_limit_exceeded", "Slow down.")
    talk.ask("once")
    expect(talk.turn.locator(".error")).to_be_visible()
    talk.page.unroute("**/v1/chat/completions")
    talk.page.reload()
    expect(talk.turn.locator(".error strong")).to_contain_text("Too many requests for now.")
    talk.scripted(piece("Now.", "stop"), "[DONE]")
    talk.turn.get_by_role("button", name="Send again").click()
    expect(talk.turn.locator(".answer")).to_have_text("Now.")
    talk.forgive("429 (Too Many Requests)")


def test_a_running_answer_is_asked_about_and_marked(visits: Visits, site: Running) -> None:
    visit = visits(HOLD_ANSWER)
    visit.enter(site.key)
    visit.ask()
    expect(visit.turn.locator(".answer")).to_have_text(re.compile(r"\S"), timeout=ANSWER_MS)
    asked: list[str] = []

    def leave(dialog: Dialog) -> None:
        asked.append(dialog.type)
        dialog.accept()

    visit.page.remove_listener("dialog", visit.dismiss)
    visit.page.once("dialog", leave)
    visit.page.reload()
    assert asked == ["beforeunload"]
    expect(visit.turn.locator(".state")).to_have_text("The page was left before this answer ended.")
    expect(visit.turn.locator(".answer")).to_have_text(re.compile(r"\S"))
    expect(visit.turn.locator(".ledger-line.done")).to_be_visible(timeout=LEDGER_MS)


def test_nobody_is_asked_where_nothing_would_be_lost(talk: Visit) -> None:
    assert not talk.page.evaluate(ASKS)
    talk.scripted(piece("One.", "stop"), "[DONE]")
    talk.ask()
    talk.finished()
    assert not talk.page.evaluate(ASKS)


def test_a_tab_that_can_keep_no_more_asks_before_it_is_left(visits: Visits, site: Running) -> None:
    visit = visits(FULL)
    visit.enter(site.key)
    visit.scripted(piece("One.", "stop"), "[DONE]")
    visit.ask()
    expect(visit.turn.locator(".answer")).to_have_text("One.")
    assert visit.page.evaluate(ASKS)


def test_a_new_conversation_and_a_forgotten_key_leave_nothing(talk: Visit) -> None:
    talk.scripted(piece("One.", "stop"), "[DONE]")
    talk.ask("secret")
    talk.finished()
    kept = "JSON.stringify([{ ...sessionStorage }, { ...localStorage }])"
    assert "secret" in talk.page.evaluate(kept)
    talk.page.get_by_role("button", name="New conversation").click()
    assert "secret" not in talk.page.evaluate(kept)
    talk.ask("secret")
    talk.finished()
    talk.page.get_by_role("button", name="Forget key").click()
    assert talk.page.evaluate("sessionStorage.length") == 0
    talk.page.reload()
    assert talk.page.evaluate("sessionStorage.length") == 0
    expect(talk.page.locator(".turn")).to_have_count(0)


def test_only_this_tab_has_it(talk: Visit, site: Running) -> None:
    talk.scripted(piece("One.", "stop"), "[DONE]")
    talk.ask("secret")
    talk.finished()
    assert "secret" not in talk.page.evaluate("JSON.stringify({ ...localStorage })")
    other = talk.page.context.new_page()
    other.goto(site.url)
    expect(other.locator("#key")).to_be_focused()
    assert other.evaluate("sessionStorage.length") == 0


def test_another_key_is_not_given_the_conversation(talk: Visit, site: Running) -> None:
    talk.scripted(piece("One.", "stop"), "[DONE]")
    talk.ask("secret")
    talk.finished()
    other = json.loads(rempart("key", "create", "--name", "other", "--json", data=site.data).stdout)["key"]
    talk.page.add_init_script("sessionStorage.removeItem('rempart.key');")
    talk.page.reload()
    talk.enter(other)
    expect(talk.prompt).to_be_focused()
    expect(talk.page.locator(".turn")).to_have_count(0)
    assert "secret" not in talk.page.evaluate("JSON.stringify({ ...sessionStorage })")


def test_what_a_browser_brings_back_the_next_day_is_thrown_away(talk: Visit) -> None:
    talk.scripted(piece("One.", "stop"), "[DONE]")
    talk.ask("secret")
    talk.finished()
    talk.page.add_init_script("sessionStorage.setItem('rempart.used', String(Date.now() - 9 * 3600 * 1000));")
    talk.page.reload()
    expect(talk.page.locator("#key")).to_be_focused()
    assert talk.page.evaluate("sessionStorage.length") == 0
