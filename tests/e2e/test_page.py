"""The page at `/` in a real Chromium against a real server: what people do with it, and what it must never do.

Every visit is watched: a request to another origin, a broken policy or an error in the console fails the test.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
from playwright.sync_api import Browser, BrowserContext, Dialog, Locator, Page, Request, Route, expect, sync_playwright

from rempart.bench.running import Running

CHROMIUM: Final = Path("/usr/bin/chromium")
if not CHROMIUM.exists():
    pytest.skip(f"the page is tested in a real browser, and {CHROMIUM} is not installed", allow_module_level=True)

ANSWER_MS: Final = 60_000
LEDGER_MS: Final = 15_000
QUESTION: Final = "Hello. What is a ledger?"

# What a browser reports of a policy that was broken, as an error of the console.
WATCH_POLICY: Final = """
document.addEventListener("securitypolicyviolation", (event) =>
  console.error("policy broken:", event.violatedDirective, event.blockedURI));
"""

# Lets a real answer through up to its first words, and then holds it until the page gives it up.
HOLD_ANSWER: Final = """
window.hold = true;
const fetchNow = window.fetch;
window.fetch = async (path, options) => {
  const response = await fetchNow(path, options);
  if (path !== "/v1/chat/completions" || !window.hold) return response;
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  while (!/"content":"[^"]/.test(text)) text += (await reader.read()).value;
  const first = text.match(/^[^]*?"content":"[^"][^]*?\\n\\n/)[0];
  const given = new ReadableStream({
    start: (controller) => {
      controller.enqueue(new TextEncoder().encode(first));
      options.signal.addEventListener("abort", () => controller.error(options.signal.reason));
    },
  });
  return new Response(given, { headers: response.headers });
};
"""


@dataclass
class Visit:
    """One tab, and what it did."""

    page: Page
    requests: list[str] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)

    def dismiss(self, dialog: Dialog) -> None:
        self.troubles.append(dialog.message)
        dialog.dismiss()

    def forgive(self, text: str) -> None:
        """The browser itself reports each answer that is not 2xx as an error; a test names those it asked for."""
        self.troubles = [trouble for trouble in self.troubles if text not in trouble]

    @property
    def turn(self) -> Locator:
        return self.page.locator(".turn").last

    @property
    def prompt(self) -> Locator:
        return self.page.locator("#prompt")

    def enter(self, key: str) -> None:
        self.page.locator("#key").fill(key)
        self.page.locator("#gate-form button").click()

    def ask(self, text: str = QUESTION) -> None:
        self.prompt.fill(text)
        self.page.locator("#send").click()

    def finished(self) -> None:
        expect(self.page.locator("#send")).to_be_visible(timeout=ANSWER_MS)
        expect(self.page.locator("#stop")).to_be_hidden()

    def recorded(self) -> Locator:
        card = self.turn.locator(".ledger")
        expect(card.locator(".ledger-line.done")).to_be_visible(timeout=LEDGER_MS)
        return card


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


Visits = Callable[..., Visit]


@pytest.fixture
def visits(browser: Browser, site: Running) -> Iterator[Visits]:
    """Opens the page in a fresh profile; takes the options of a Playwright context."""
    opened: list[tuple[BrowserContext, Visit]] = []

    def visit(script: str = "", **options: Any) -> Visit:
        context = browser.new_context(**{"locale": "en-GB", **options})
        context.add_init_script(WATCH_POLICY + script)
        page = context.new_page()
        made = Visit(page)
        page.on("request", lambda request: made.requests.append(request.url))
        page.on("console", lambda told: made.troubles.append(told.text) if told.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: made.troubles.append(str(error)))
        page.on("dialog", made.dismiss)
        opened.append((context, made))
        page.goto(site.url)
        return made

    yield visit
    for context, made in opened:
        context.close()
        assert [url for url in made.requests if not url.startswith(site.url + "/")] == []
        assert made.troubles == []


@pytest.fixture
def talk(visits: Visits, site: Running) -> Visit:
    """A visit with a key that the page took."""
    visit = visits()
    visit.enter(site.key)
    expect(visit.prompt).to_be_focused()
    return visit


def scripted(visit: Visit, *events: object, status: int = 200, kind: str = "text/event-stream") -> None:
    """The next answers are these events, or one JSON body where `kind` says so."""
    body = "".join(f"data: {event if isinstance(event, str) else json.dumps(event)}\n\n" for event in events)
    if kind == "application/json":
        body = json.dumps(events[0])

    def answer(route: Route) -> None:
        route.fulfill(status=status, headers={"content-type": kind}, body=body)

    visit.page.route("**/v1/chat/completions", answer)


def sent(request: Request) -> list[str]:
    """What both sides said, as the page sends it."""
    return [message["content"] for message in json.loads(request.post_data or "")["messages"]]


def piece(text: str, finish: str | None = None) -> dict[str, object]:
    return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]}


# The key


def test_it_asks_for_a_key_first(visits: Visits) -> None:
    visit = visits()
    key = visit.page.get_by_label("API key", exact=True)
    expect(key).to_be_focused()
    expect(key).to_have_attribute("type", "password")
    expect(visit.page.locator("#gate .notice")).to_contain_text("recorded in this site’s tamper-evident ledger")
    expect(visit.prompt).to_be_hidden()
    expect(visit.page.get_by_role("button", name="Forget key")).to_be_hidden()


@pytest.mark.parametrize("key", ["rp_wrong", "clé"])
def test_a_wrong_key_is_refused_and_can_be_mended(visits: Visits, site: Running, key: str) -> None:
    visit = visits()
    visit.enter(key)
    alert = visit.page.get_by_role("alert")
    expect(alert).to_contain_text("This key is not accepted.")
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
    assert page.evaluate("[Object.values(sessionStorage), Object.values(localStorage)]") == [[site.key], []]
    page.reload()
    expect(talk.prompt).to_be_focused()
    page.get_by_role("button", name="Forget key").click()
    expect(page.get_by_label("API key", exact=True)).to_be_focused()
    expect(page.get_by_label("API key", exact=True)).to_have_value("")
    assert page.evaluate("sessionStorage.length") == 0
    page.reload()
    expect(page.get_by_label("API key", exact=True)).to_be_focused()


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


def test_the_card_shows_where_the_ledger_holds_it(talk: Visit, site: Running) -> None:
    talk.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    with talk.page.expect_response("**/v1/chat/completions") as asked:
        talk.ask()
    exchange = asked.value.headers["x-rempart-exchange"]
    talk.finished()
    card = talk.recorded()
    shown = {
        name: card.locator(f'[data-field="{name}"]').text_content() or ""
        for name in ("request", "response", "size", "origin", "root")
    }
    trace = talk.page.request.get(
        f"{site.url}/rempart/v1/exchanges/{exchange}", headers={"authorization": f"Bearer {site.key}"}
    ).json()
    indexes = {entry["type"]: str(entry["index"]) for entry in trace["entries"]}
    assert (shown["request"], shown["response"]) == (indexes["request"], indexes["response"])
    assert shown["origin"] == trace["checkpoint"]["origin"]
    assert int(shown["size"]) > int(shown["response"])
    card.get_by_text("In full").click()
    root = card.locator('[data-field="whole-root"]').text_content() or ""
    assert shown["root"] == f"{root[:8]}…{root[-8:]}"
    for entry in trace["entries"]:
        expect(card.locator(f'[data-field="leaf-{entry["type"]}"]')).to_have_text(entry["leaf_hash"])
    card.get_by_role("button", name="Copy root").click()
    expect(card.get_by_role("button", name="Copied")).to_be_focused()
    assert talk.page.evaluate("navigator.clipboard.readText()") == root


def test_the_browser_itself_checks_the_proof_and_the_signature(talk: Visit) -> None:
    talk.ask()
    talk.finished()
    expect(talk.recorded().locator(".ledger-line")).to_have_text(
        "Recorded in the ledger; this browser checked the proof."
    )


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


def _another_exchange(trace: dict[str, Any]) -> None:
    trace["exchange"] = "0" * 32


def _no_proof(trace: dict[str, Any]) -> None:
    trace["proofs"].pop()


@pytest.mark.parametrize(
    "forge",
    [
        *(_another_hash, _another_entry, _another_leaf, _another_root, _another_signature),
        *(_another_exchange, _no_proof),
    ],
)
def test_a_forged_proof_is_seen_by_the_browser(talk: Visit, forge: Callable[[dict[str, Any]], None]) -> None:
    def answer(route: Route) -> None:
        response = route.fetch()
        trace = response.json()
        if trace.get("proofs"):
            forge(trace)
        route.fulfill(response=response, json=trace)

    talk.page.route("**/rempart/v1/exchanges/*", answer)
    talk.ask()
    talk.finished()
    expect(talk.turn.locator(".ledger .ledger-line.failed")).to_have_text(
        "The ledger’s proof does not hold. Tell your security officer.", timeout=LEDGER_MS
    )


def test_another_key_than_at_the_first_sight_is_told(talk: Visit) -> None:
    talk.page.evaluate("localStorage.setItem('ledger-key', 'somebody else')")
    talk.ask()
    talk.finished()
    expect(talk.turn.locator(".ledger .ledger-line.failed")).to_contain_text("another key", timeout=LEDGER_MS)


def test_the_conversation_goes_along_and_can_be_begun_anew(talk: Visit) -> None:
    scripted(talk, piece("One."), piece("", "stop"), "[DONE]")
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


# What goes wrong


def test_an_error_within_the_stream_keeps_what_came(talk: Visit) -> None:
    error = {"message": "The engine gave up.", "type": "server_error", "param": None, "code": "engine_timeout"}
    scripted(talk, piece("Half an ans"), {"error": error})
    talk.ask()
    talk.finished()
    expect(talk.turn.locator(".answer")).to_have_text("Half an ans")
    expect(talk.turn.locator(".error")).to_have_text(
        "The model took too long to answer.The server says: The engine gave up."
    )
    expect(talk.page.get_by_role("status")).to_contain_text("The model took too long to answer.")


def test_an_answer_that_breaks_off_says_so_and_can_be_asked_again(talk: Visit) -> None:
    scripted(talk, piece("Half an ans"))
    talk.ask("once")
    expect(talk.turn.locator(".error")).to_have_text("The answer broke off before its end.")
    talk.page.unroute("**/v1/chat/completions")
    scripted(talk, piece("Whole.", "stop"), "[DONE]")
    with talk.page.expect_request("**/v1/chat/completions") as again:
        talk.page.get_by_role("button", name="Send again").click()
    assert sent(again.value) == ["once"]
    expect(talk.turn.locator(".answer")).to_have_text("Whole.")


def test_a_refusal_is_told_in_both_languages(talk: Visit) -> None:
    error = {"message": "Slow down.", "type": "rate_limit_error", "param": None, "code": "rate_limit_exceeded"}
    scripted(talk, {"error": error}, status=429, kind="application/json")
    talk.ask()
    expect(talk.turn.locator(".error")).to_contain_text("Too many requests for now.")
    talk.page.get_by_role("button", name="Français").click()
    expect(talk.turn.locator(".error")).to_have_text(
        "Trop de demandes pour l’instant. Attendez une minute, puis renvoyez.Le serveur indique : Slow down."
    )
    talk.forgive("429 (Too Many Requests)")


def test_a_server_that_is_gone_is_named(talk: Visit) -> None:
    talk.page.route("**/v1/chat/completions", lambda route: route.abort("connectionrefused"))
    talk.ask()
    expect(talk.turn.locator(".error")).to_have_text(
        "The server cannot be reached. Check that it runs, then try again."
    )
    expect(talk.prompt).to_be_enabled()
    talk.forgive("ERR_CONNECTION_REFUSED")


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
    assert {"In full", "Copy root"} <= set(reached)
    keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()


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
    scripted(visit, piece(f"{'x' * 200}\n\n```\n{'y' * 200}\n```\n\n{row}|---|--:|:-:|\n{row}", "stop"), "[DONE]")
    visit.ask("z" * 200)
    expect(visit.turn.locator("td")).to_have_count(3)
    assert not visit.page.evaluate(too_wide)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_follows_the_theme_of_the_system(visits: Visits, scheme: str) -> None:
    visit = visits(color_scheme=scheme)
    ground = {"light": "rgb(245, 247, 248)", "dark": "rgb(17, 24, 28)"}[scheme]
    expect(visit.page.locator("body")).to_have_css("background-color", ground)


# Text of a model is text of a stranger

ATTACKS: Final = [
    "<img src=x onerror=window.hacked=1>",
    "<script>window.hacked=1</script>",
    "<svg onload=window.hacked=1>",
    "<svg><style><img src=x onerror=window.hacked=1></style></svg>",
    '<iframe srcdoc="<script>parent.hacked=1</script>"></iframe>',
    '<a href="javascript:window.hacked=1" onclick="window.hacked=1">x</a>',
    '<p style="background:url(https://example.org/x)">x</p>',
    "<form action=https://example.org><button>x</button></form>",
    "[x](javascript:window.hacked=1)",
    "[x](JaVaScRiPt:window.hacked=1)",
    "[x](java\tscript:window.hacked=1)",
    "[x](&#106;avascript:window.hacked=1)",
    "[x](data:text/html,<script>window.hacked=1</script>)",
    "[x](vbscript:x)",
    "[x](file:///etc/passwd)",
    "[x](//example.org)",
    "[x](/v1/models)",
    "<javascript:window.hacked=1>",
    "![x](https://example.org/x.png)",
    "![x](x.png)",
    "![<img src=x onerror=window.hacked=1>](x)",
    "[![x](https://example.org/x.png)](https://example.org)",
    '[x](https://example.org "\\" onmouseover=window.hacked=1 x=\\"")',
    '```"><img src=x onerror=window.hacked=1>\nx\n```',
    "| <img src=x onerror=window.hacked=1> |\n|:-:|\n| x |",
]
SHOW: Final = """async (text) => {
  const { render } = await import("/static/render.js");
  const box = document.createElement("div");
  document.body.append(box);
  box.append(render(text));
  const all = [...box.querySelectorAll("*")];
  return {
    tags: all.map((one) => one.localName),
    attributes: all.flatMap((one) => one.getAttributeNames()),
    links: all.filter((one) => one.hasAttribute("href")).map((one) => [one.protocol, one.rel, one.target]),
    text: box.textContent,
  };
}"""
TAGS: Final = {
    *("h3", "h4", "h5", "h6", "p", "br", "hr", "blockquote", "pre", "code", "ul", "ol", "li"),
    *("a", "em", "strong", "s", "table", "thead", "tbody", "tr", "th", "td"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_is_only_text(visits: Visits, attack: str) -> None:
    visit = visits()
    shown = visit.page.evaluate(SHOW, attack)
    assert set(shown["tags"]) <= TAGS
    assert set(shown["attributes"]) <= {"class", "href", "rel", "start", "target", "title"}
    assert all(link == ["https:", "noreferrer noopener", "_blank"] for link in shown["links"])
    assert shown["text"].strip()
    assert visit.page.evaluate("window.hacked") is None


def test_attacks_in_a_conversation_stay_inert(talk: Visit) -> None:
    attack = "\n\n".join(ATTACKS)
    scripted(talk, *(piece(part) for part in re.findall(r"(?s).{1,7}", attack)), "[DONE]")
    talk.ask(attack)
    talk.finished()
    expect(talk.turn.locator(".asked")).to_contain_text("<img src=x onerror=window.hacked=1>")
    expect(talk.turn.locator(".answer")).to_contain_text("<img src=x onerror=window.hacked=1>")
    expect(talk.turn.locator(":is(.asked, .answer) :is(img, script, svg, iframe, form, style)")).to_have_count(0)
    assert talk.page.evaluate("window.hacked") is None


@pytest.mark.parametrize("address", ["https://example.org/a", "http://example.org/a", "mailto:a@example.org"])
def test_an_honest_link_stays_and_tells_nothing(visits: Visits, address: str) -> None:
    shown = visits().page.evaluate(SHOW, f"[here]({address})")
    assert shown["links"] == [[address.split(":")[0] + ":", "noreferrer noopener", "_blank"]]


def test_markdown_has_its_structure(visits: Visits) -> None:
    text = "# One\n\n**b** *i* ~~s~~ `c`\n\n3. x\n\n- y\n\n> q\n\n```py\nz\n```\n\n| a |\n|--:|\n| b |\n\n---"
    shown = visits().page.evaluate(SHOW, text)
    assert set(shown["tags"]) == TAGS - {"a", "br", "h4", "h5", "h6"}
    assert "style" not in shown["attributes"]


# The watch itself


def test_the_watch_sees_what_it_should(visits: Visits) -> None:
    """A broken policy and a foreign request would be noticed; without this test, silence would prove nothing."""
    visit = visits()
    visit.page.evaluate("fetch('https://example.org/').catch(() => {})")
    visit.page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=window.hacked=1>')")
    visit.page.wait_for_function("performance.now() > 0")
    expect(visit.page.locator("img")).to_have_count(1)
    assert visit.page.evaluate("window.hacked") is None
    assert any("connect-src" in trouble for trouble in visit.troubles)
    assert any("script-src" in trouble for trouble in visit.troubles)
    visit.troubles.clear()
    visit.requests.clear()
