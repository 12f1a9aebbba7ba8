"""The page at `/` in a real Chromium against a real server: what people do with it, and whether everybody can."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Route, expect
from tests.e2e.conftest import ANSWER_MS, HOLD_ANSWER, QUESTION, Visit, Visits, piece, sent

from rempart.bench.running import Running

# The key


def test_it_asks_for_a_key_first(visits: Visits) -> None:
    visit = visits()
    key = visit.page.get_by_label("API key", exact=True)
    expect(key).to_be_focused()
    expect(key).to_have_attribute("type", "password")
    expect(visit.page.locator("#gate .notice")).to_contain_text("in your organisation’s tamper-evident ledger")
    expect(visit.prompt).to_be_hidden()
    expect(visit.page.get_by_role("button", name="Forget key")).to_be_hidden()


@pytest.mark.parametrize("key", ["rp_wrong", "clé"])
def test_a_wrong_key_is_refused_and_can_be_mended(visits: Visits, site: Running, key: str) -> None:
    visit = visits()
    visit.enter(key)
    alert = visit.page.get_by_role("alert")
    expect(alert).to_contain_text("This key is not accepted: mistyped, revoked or expired.")
    field = visit.page.get_by_label("API key", exact=True)
    expect(field).to_be_focused()
    expect(field).to_have_attribute("aria-invalid", "true")
    assert visit.page.evaluate("sessionStorage.length") == 0
    visit.enter(site.key)
    expect(visit.prompt).to_be_focused()
    visit.forgive("401 (Unauthorized)")


def test_no_key_at_all_is_asked_for(visits: Visits) -> None:
    visit = visits()
    visit.enter("  ")
    expect(visit.page.get_by_role("alert")).to_have_text("Enter an API key.")


def test_the_key_stays_in_the_tab_until_it_is_forgotten(talk: Visit, site: Running) -> None:
    page = talk.page
    assert page.evaluate("[sessionStorage.getItem('rempart.key'), localStorage.length]") == [site.key, 0]
    page.reload()
    expect(talk.prompt).to_be_focused()
    page.get_by_role("button", name="Forget key").click()
    expect(page.get_by_label("API key", exact=True)).to_be_focused()
    expect(page.get_by_label("API key", exact=True)).to_have_value("")
    assert page.evaluate("sessionStorage.length") == 0
    page.reload()
    expect(page.get_by_label("API key", exact=True)).to_be_focused()


# The demonstration


@pytest.mark.parametrize(
    ("locale", "told", "question", "typed"),
    [
        ("en-GB", "This is a demonstration.", "What is the ledger?", "What is the ledger?"),
        ("fr-FR", "Ceci est une démonstration.", "Qu’est-ce que le registre ?", "Qu'est-ce que le registre ?"),
    ],
)
def test_the_guide_says_that_it_is_a_demonstration_and_offers_questions(
    visits: Visits, site: Running, locale: str, told: str, question: str, typed: str
) -> None:
    visit = visits(locale=locale)
    visit.enter(site.key)
    expect(visit.page.locator("#demo")).to_contain_text(told)
    expect(visit.page.locator("#demo").get_by_role("button")).to_have_count(3)
    with visit.page.expect_request("**/v1/chat/completions") as request:
        visit.page.get_by_role("button", name=question).click()
    assert sent(request.value) == [typed]
    expect(visit.page.locator("#demo")).to_be_hidden()
    visit.finished()
    expect(visit.prompt).to_be_focused()
    expect(visit.turn.locator(".who").last).to_have_text(re.compile("guide · d[ée]monstration"))


def with_models(visit: Visit, *names: str) -> None:
    """The key may use these as well."""

    def answer(route: Route) -> None:
        response = route.fetch()
        listed = response.json()
        listed["data"] += [{"id": name} for name in names]
        route.fulfill(response=response, json=listed)

    visit.page.route("**/v1/models", answer)


def test_a_model_that_is_chosen_for_work_is_no_demonstration(visits: Visits, site: Running) -> None:
    visit = visits()
    with_models(visit, "work")
    visit.enter(site.key)
    expect(visit.page.locator("#demo")).to_be_visible()
    visit.page.get_by_label("Model").select_option("work")
    expect(visit.page.locator("#demo")).to_be_hidden()
    expect(visit.page.locator("#empty")).to_be_visible()
    visit.scripted(piece("One.", "stop"), "[DONE]")
    visit.ask()
    expect(visit.turn.locator(".who").last).to_have_text("work")


# The conversation


def test_a_message_is_answered_and_read_out(talk: Visit, site: Running) -> None:
    expect(talk.page.get_by_label("Model")).to_have_value(site.model)
    talk.ask()
    expect(talk.turn.locator(".asked")).to_have_text(QUESTION)
    expect(talk.prompt).to_have_value("")
    talk.finished()
    expect(talk.turn.locator(".answer")).to_have_text(re.compile(r"\S"))
    expect(talk.turn.locator(".answer")).not_to_have_attribute("aria-busy", "true")
    expect(talk.page.get_by_role("status")).to_contain_text(f"Answer of {site.model}")
    expect(talk.page.get_by_role("button", name="Copy answer")).to_be_visible()


def test_the_conversation_goes_along_and_can_be_begun_anew(talk: Visit) -> None:
    talk.scripted(piece("One."), piece("", "stop"), "[DONE]")
    talk.ask("first")
    expect(talk.turn.locator(".answer")).to_have_text("One.")
    with talk.page.expect_request("**/v1/chat/completions") as second:
        talk.ask("second")
    assert sent(second.value) == ["first", "One.", "second"]
    expect(talk.page.locator(".answer")).to_have_text(["One.", "One."])
    talk.page.get_by_role("button", name="New conversation").click()
    expect(talk.page.locator(".turn")).to_have_count(0)
    expect(talk.prompt).to_be_focused()
    with talk.page.expect_request("**/v1/chat/completions") as third:
        talk.ask("third")
    assert sent(third.value) == ["third"]


@pytest.mark.parametrize("way", ["click", "escape"])
def test_stopping_leaves_the_page_usable(visits: Visits, site: Running, way: str) -> None:
    visit = visits(HOLD_ANSWER)
    visit.enter(site.key)
    visit.ask()
    expect(visit.turn.locator(".answer")).to_have_text(re.compile(r"\S"), timeout=ANSWER_MS)
    if way == "click":
        visit.page.get_by_role("button", name="Stop").click()
    else:
        visit.prompt.press("Escape")
    expect(visit.turn.locator(".state")).to_have_text("Stopped. What you see is all that was written.")
    visit.finished()
    visit.recorded()
    visit.page.evaluate("window.hold = false")
    visit.ask("And now?")
    expect(visit.page.locator(".turn")).to_have_count(2)
    visit.finished()
    visit.recorded()


# Languages


def test_french_is_a_switch_away_and_remembered(talk: Visit) -> None:
    page = talk.page
    talk.ask()
    talk.finished()
    talk.recorded()
    page.get_by_role("button", name="Français").click()
    expect(page.locator("html")).to_have_attribute("lang", "fr")
    expect(talk.turn.get_by_text("Consigné dans le registre")).to_be_visible()
    expect(page.get_by_role("button", name="Envoyer")).to_be_visible()
    expect(talk.prompt).to_have_attribute("placeholder", "Votre message")
    page.reload()
    expect(page.get_by_role("button", name="Oublier la clé")).to_be_visible()
    page.get_by_role("button", name="English").click()
    expect(page.get_by_role("button", name="Forget key")).to_be_visible()


@pytest.mark.parametrize(("locale", "lang"), [("fr-CA", "fr"), ("en-US", "en"), ("de-DE", "en")])
def test_the_browser_chooses_the_first_language(visits: Visits, locale: str, lang: str) -> None:
    expect(visits(locale=locale).page.locator("html")).to_have_attribute("lang", lang)


def test_french_breaks_no_line_before_its_punctuation(visits: Visits, site: Running) -> None:
    visit = visits(locale="fr-FR")
    visit.enter(site.key)
    expect(visit.page.locator("#demo")).to_contain_text("«\u00a0guide\u00a0»", use_inner_text=True)
    breakable = "[...document.body.textContent.matchAll(/ [;:?!»]|« /g)].map((found) => found[0])"
    assert visit.page.evaluate(breakable) == []


# For everybody


def test_all_of_it_works_by_keyboard_alone(visits: Visits, site: Running) -> None:
    visit = visits()
    keyboard, page = visit.page.keyboard, visit.page
    expect(page.locator("#key")).to_be_focused()
    keyboard.type(site.key)
    keyboard.press("Enter")
    expect(visit.prompt).to_be_focused()
    keyboard.type("Hello")
    keyboard.press("Shift+Enter")
    keyboard.type("again")
    expect(visit.prompt).to_have_value("Hello\nagain")
    keyboard.press("Enter")
    visit.finished()
    visit.recorded()
    expect(visit.prompt).to_be_focused()
    reached = []
    for _ in range(12):
        keyboard.press("Shift+Tab")
        focused = page.locator(":focus")
        expect(focused).to_be_in_viewport()
        expect(focused).to_have_css("outline-style", "solid")
        reached.append((focused.text_content() or "").strip())
        if reached[-1] == "Skip to the content":
            break
    assert reached[-4:] == ["Copy answer", "Forget key", "Français", "Skip to the content"]
    assert any(text.endswith("Proof details") for text in reached)
    keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    for _ in range(2):
        keyboard.press("Tab")
    expect(visit.turn.locator(".ledger summary")).to_be_focused()
    keyboard.press("Space")
    expect(visit.turn.locator('[data-field="exchange"]')).to_be_visible()
    keyboard.press("Tab")
    expect(visit.turn.get_by_role("button", name="Copy id")).to_be_focused()
    expect(visit.turn.get_by_role("button", name="Copy id")).to_be_in_viewport()


def test_every_control_has_a_name_and_every_id_is_one(talk: Visit) -> None:
    nameless = talk.page.evaluate(
        """[...document.querySelectorAll("button, input, select, textarea, summary, a")]
          .filter((one) => !one.textContent.trim() && !one.labels?.length && !one.ariaLabel)
          .map((one) => one.outerHTML)"""
    )
    assert nameless == []
    ids = talk.page.evaluate("[...document.querySelectorAll('[id]')].map((one) => one.id)")
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("locale", ["en-GB", "fr-FR"])
@pytest.mark.parametrize("width", [320, 360, 768])
def test_nothing_hangs_over_the_side(visits: Visits, site: Running, locale: str, width: int) -> None:
    visit = visits(locale=locale, viewport={"width": width, "height": 640})
    too_wide = "document.documentElement.scrollWidth > window.innerWidth"
    expect(visit.page.locator("#key")).to_be_visible()
    assert not visit.page.evaluate(too_wide)
    visit.enter(site.key)
    row = "| a long cell | another long cell | a third long cell |\n"
    visit.scripted(piece(f"{'x' * 200}\n\n```\n{'y' * 200}\n```\n\n{row}|---|--:|:-:|\n{row}", "stop"), "[DONE]")
    visit.ask("z" * 200)
    expect(visit.turn.locator("td")).to_have_count(3)
    assert not visit.page.evaluate(too_wide)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_follows_the_theme_of_the_system(visits: Visits, scheme: str) -> None:
    visit = visits(color_scheme=scheme)
    ground = {"light": "rgb(245, 247, 248)", "dark": "rgb(17, 24, 28)"}[scheme]
    expect(visit.page.locator("body")).to_have_css("background-color", ground)


@pytest.mark.parametrize("width", [360, 1100])
def test_the_name_of_the_model_is_shown_whole(visits: Visits, site: Running, width: int) -> None:
    name = "mistral-small-3.2-24b-instruct-2506"
    visit = visits(viewport={"width": width, "height": 640}, locale="fr-FR")
    with_models(visit, name)
    visit.enter(site.key)
    visit.scripted(piece("One.", "stop"), "[DONE]")
    visit.page.locator("#model").select_option(name)
    visit.ask()
    visit.finished()
    room = visit.page.evaluate(
        """() => {
          const field = document.getElementById("model");
          const style = getComputedStyle(field);
          const pen = document.createElement("canvas").getContext("2d");
          pen.font = style.font;
          const padding = parseFloat(style.paddingLeft) + parseFloat(style.paddingRight);
          return field.clientWidth - padding - pen.measureText(field.selectedOptions[0].text).width;
        }"""
    )
    assert room >= 0
    expect(visit.page.get_by_role("button", name="Nouvelle conversation")).to_be_in_viewport()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_from_its_ground(visits: Visits, site: Running, scheme: str) -> None:
    visit = visits(color_scheme=scheme)
    visit.enter("rp_wrong")
    expect(visit.page.get_by_role("alert")).to_be_visible()
    assert visit.poor() == []
    visit.enter(site.key)
    expect(visit.page.locator("#demo")).to_be_visible()
    assert visit.poor() == []
    visit.ask()
    visit.finished()
    visit.recorded().get_by_text("Proof details").click()
    visit.refused(503, "overloaded", "Too many exchanges are running.")
    visit.ask()
    visit.turn.locator(".error summary").click()
    assert visit.poor() == []
    visit.forgive("401 (Unauthorized)")
    visit.forgive("503 (Service Unavailable)")


def test_the_watch_sees_poor_contrast(visits: Visits) -> None:
    """Without this test, silence of the one above would prove nothing."""
    visit = visits()
    visit.page.evaluate("document.querySelector('#gate-title').style.color = '#bbb'")
    assert [found[2] for found in visit.poor()] == ["Your API key"]
