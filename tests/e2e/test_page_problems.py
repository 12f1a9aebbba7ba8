"""The page in a real Chromium: what goes wrong, told in the reader's language, and the way on."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from typing import Any, Final

import pytest
from playwright.sync_api import Route, expect
from tests.e2e.conftest import Visit, Visits, piece, sent

from rempart import errors
from rempart.bench.running import Running, rempart

# Errors of the command line, and one that nobody is left to read.
NOT_OVER_HTTP: Final = {
    *("usage", "bad_configuration", "directory_locked", "missing_dependency", "client_gone"),
    *("address_in_use", "erasure_refused", "no_installation", "not_gguf", "not_running"),
    *("witness_error", "witness_refused", "timestamp_error"),
    "unsupported_encoding",  # no browser sends one
}


def new_key(site: Running, *options: str) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(
        rempart("key", "create", "--name", "of a test", "--json", *options, data=site.data).stdout
    )
    return made


# An answer that fails


def test_an_error_within_the_stream_keeps_what_came(talk: Visit) -> None:
    error = {"message": "The engine gave up.", "type": "server_error", "param": None, "code": "engine_timeout"}
    talk.scripted(piece("Half an ans"), {"error": error})
    talk.ask()
    talk.finished()
    expect(talk.turn.locator(".answer")).to_have_text("Half an ans")
    expect(talk.turn.locator(".error strong")).to_have_text("The model took too long to answer.")
    expect(talk.page.get_by_role("status")).to_contain_text("The model took too long to answer.")


def test_an_answer_that_breaks_off_says_so_and_can_be_asked_again(talk: Visit) -> None:
    talk.scripted(piece("Half an ans"))
    talk.ask("once")
    expect(talk.turn.locator(".error")).to_have_text("The answer broke off before its end.")
    talk.page.unroute("**/v1/chat/completions")
    talk.scripted(piece("Whole.", "stop"), "[DONE]")
    with talk.page.expect_request("**/v1/chat/completions") as again:
        talk.page.get_by_role("button", name="Send again").click()
    assert sent(again.value) == ["once"]
    expect(talk.turn.locator(".answer")).to_have_text("Whole.")


@pytest.mark.parametrize(
    ("locale", "title", "lead"),
    [
        ("en-GB", "Too many requests for now. Wait a minute, then send again.", "The server says:"),
        (
            "fr-FR",
            "Trop de demandes pour l’instant. Attendez une minute, puis renvoyez.",
            "Le serveur indique, en anglais :",
        ),
    ],
)
def test_a_refusal_is_told_in_the_readers_language(
    visits: Visits, site: Running, locale: str, title: str, lead: str
) -> None:
    """The server's own text is English: it lies folded away, for whoever is asked for help."""
    visit = visits(locale=locale)
    visit.enter(site.key)
    visit.refused(429, "rate_limit_exceeded", "Slow down.")
    visit.ask()
    box = visit.turn.locator(".error")
    expect(box.locator("strong")).to_have_text(title)
    expect(visit.page.get_by_role("status")).to_have_text(title)
    said = box.locator("details p")
    expect(said).to_be_hidden()
    box.locator("summary").click()
    expect(said).to_be_visible()
    expect(said).to_have_text(f"{lead} Slow down. (rate_limit_exceeded)")
    expect(said.locator("[lang=en]")).to_have_text("Slow down.")
    visit.forgive("429 (Too Many Requests)")


def test_a_switch_of_language_reaches_what_went_wrong(talk: Visit) -> None:
    talk.refused(503, "overloaded", "Too many exchanges are running.")
    talk.ask()
    expect(talk.turn.locator(".error strong")).to_have_text("The server is busy. Send again in a moment.")
    talk.page.get_by_role("button", name="Français").click()
    expect(talk.turn.locator(".error strong")).to_have_text("Le serveur est très sollicité. Renvoyez dans un instant.")
    expect(talk.turn.locator(".error summary")).to_have_text("Détails")
    talk.forgive("503 (Service Unavailable)")


def test_every_error_of_the_server_has_its_words() -> None:
    """The tests of the words hold both languages to the same keys."""
    words = (files("rempart.console") / "static/words.js").read_text()
    codes, found = set(), [errors.RempartError]
    while found:
        one = found.pop()
        codes.add(one.code)
        found.extend(one.__subclasses__())
    assert {code for code in codes - NOT_OVER_HTTP if f'"error_{code}"' not in words} == set()


def test_a_server_that_is_gone_is_named(talk: Visit) -> None:
    talk.page.route("**/v1/chat/completions", lambda route: route.abort("connectionrefused"))
    talk.ask()
    expect(talk.turn.locator(".error")).to_have_text(
        "The server cannot be reached. Check that it runs, then try again."
    )
    expect(talk.prompt).to_be_enabled()
    talk.forgive("ERR_CONNECTION_REFUSED")


# A key that is no good, or no longer


def test_after_a_revocation_another_key_goes_on_with_the_conversation(visits: Visits, site: Running) -> None:
    revoked = new_key(site)
    visit = visits()
    visit.enter(revoked["key"])
    visit.ask("first")
    visit.finished()
    rempart("key", "revoke", revoked["id"], data=site.data)
    visit.ask("second")
    expect(visit.turn.locator(".error strong")).to_have_text("This key is not accepted: mistyped, revoked or expired.")
    expect(visit.turn.get_by_role("button", name="Send again")).to_have_count(0)
    visit.turn.get_by_role("button", name="Enter another key").click()
    expect(visit.page.get_by_label("API key", exact=True)).to_be_focused()
    expect(visit.page.locator("#gate-goes-on")).to_be_visible()
    expect(visit.page.locator("#turns")).to_be_hidden()
    assert visit.page.evaluate("sessionStorage.getItem('rempart.key')") is None
    assert visit.page.evaluate("sessionStorage.getItem('rempart.conversation')") is None
    visit.enter(site.key)
    expect(visit.prompt).to_be_focused()
    expect(visit.prompt).to_have_value("second")
    expect(visit.page.locator(".turn").first).to_be_visible()
    with visit.page.expect_request("**/v1/chat/completions") as again:
        visit.prompt.press("Enter")
    assert sent(again.value)[0::2] == ["first", "second"]
    visit.finished()
    visit.recorded()
    visit.forgive("401 (Unauthorized)")


def test_instead_of_another_key_all_can_be_forgotten(talk: Visit) -> None:
    talk.refused(401, "invalid_api_key", "That is not an API key of this server.")
    talk.ask("secret")
    talk.turn.get_by_role("button", name="Enter another key").click()
    talk.page.get_by_role("button", name="Forget key").click()
    expect(talk.page.get_by_label("API key", exact=True)).to_be_focused()
    expect(talk.page.locator("#gate-goes-on")).to_be_hidden()
    expect(talk.page.locator(".turn")).to_have_count(0)
    assert talk.page.evaluate("sessionStorage.length") == 0
    talk.forgive("401 (Unauthorized)")


@pytest.mark.parametrize(
    ("locale", "told", "button"),
    [
        ("en-GB", "This key allows no model. Ask your administrator.", "Enter another key"),
        ("fr-FR", "Cette clé ne permet aucun modèle ; demandez à votre administrateur.", "Saisir une autre clé"),
    ],
)
def test_a_key_without_a_model_is_told_so(visits: Visits, site: Running, locale: str, told: str, button: str) -> None:
    visit = visits(locale=locale)
    visit.enter(new_key(site, "--model", "none-of-that-name")["key"])
    expect(visit.page.locator("#barred-why")).to_have_text(told)
    expect(visit.page.locator("#barred-why")).to_be_focused()
    expect(visit.prompt).to_be_hidden()
    visit.page.get_by_role("button", name=button).click()
    visit.enter(site.key)
    expect(visit.prompt).to_be_focused()
    expect(visit.page.locator("#barred")).to_be_hidden()


def test_a_key_whose_engine_is_down_is_not_blamed(visits: Visits, site: Running) -> None:
    visit = visits()
    down = {"ready": False, "reasons": {}, "engines": {"embedded": "not asked yet"}}
    visit.page.route("**/readyz", lambda route: route.fulfill(status=503, json=down))

    def none(route: Route) -> None:
        route.fulfill(json={"object": "list", "data": []})

    visit.page.route("**/v1/models", none)
    visit.enter(site.key)
    expect(visit.page.locator("#barred-why")).to_have_text(re.compile("^No model of this key is running"))
    visit.page.unroute("**/v1/models")
    visit.page.get_by_role("button", name="Try again").click()
    expect(visit.prompt).to_be_focused()
    visit.forgive("503 (Service Unavailable)")
