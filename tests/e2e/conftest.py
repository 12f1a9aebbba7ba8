"""A real server with the real guide for the tests of this folder, and a real browser that visits its page.

Every visit is watched: a request to another origin, a broken policy or an error in the console fails the test.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
from playwright.sync_api import Browser, BrowserContext, Dialog, Locator, Page, Request, Route, expect, sync_playwright

from rempart.bench.running import Running, running
from rempart.testing.scripted import ScriptedServer

CHROMIUM: Final = Path("/usr/bin/chromium")
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

# The contrast of each visible text with what lies behind it, where that is under 4.5 (WCAG 2.2, section 1.4.3).
POOR: Final = """() => {
  const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (colour) => parts(colour).slice(0, 3)
    .map((part) => part / 255)
    .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
    .reduce((sum, part, at) => sum + part * [0.2126, 0.7152, 0.0722][at], 0);
  const behind = (one) => {
    const colour = getComputedStyle(one).backgroundColor;
    return parts(colour)[3] === 0 ? behind(one.parentElement) : colour;
  };
  return [...document.body.querySelectorAll("*")]
    .filter((one) => one.checkVisibility())
    .filter((one) => [...one.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim()))
    .map((one) => {
      const [dark, bright] = [light(getComputedStyle(one).color), light(behind(one))].sort((a, b) => a - b);
      return [(bright + 0.05) / (dark + 0.05), one.className, one.textContent.trim()];
    })
    .filter(([contrast]) => contrast < 4.5);
}"""


@pytest.fixture
async def engine() -> AsyncIterator[ScriptedServer]:
    async with ScriptedServer() as server:
        yield server


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One server for all tests that only ask it."""
    data: Path = tmp_path_factory.mktemp("site") / "data"
    with running(data) as server:
        yield server


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

    def poor(self) -> list[Any]:
        """(contrast, class, text) of what cannot be read well."""
        found: list[Any] = self.page.evaluate(POOR)
        return found

    def scripted(self, *events: object, status: int = 200, kind: str = "text/event-stream") -> None:
        """The next answers are these events, or one JSON body where `kind` says so."""
        body = "".join(f"data: {event if isinstance(event, str) else json.dumps(event)}\n\n" for event in events)
        if kind == "application/json":
            body = json.dumps(events[0])

        def answer(route: Route) -> None:
            route.fulfill(status=status, headers={"content-type": kind}, body=body)

        self.page.route("**/v1/chat/completions", answer)

    def refused(self, status: int, code: str, message: str) -> None:
        """The next answers are this error."""
        error = {"message": message, "type": "", "param": None, "code": code}
        self.scripted({"error": error}, status=status, kind="application/json")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not CHROMIUM.exists():
        pytest.skip(f"the page is tested in a real browser, and {CHROMIUM} is not installed")
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


def sent(request: Request) -> list[str]:
    """What both sides said, as the page sends it."""
    return [message["content"] for message in json.loads(request.post_data or "")["messages"]]


def piece(text: str, finish: str | None = None) -> dict[str, object]:
    return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]}
