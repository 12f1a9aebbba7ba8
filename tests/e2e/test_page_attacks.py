"""The page in a real Chromium: the text of a model is the text of a stranger."""

from __future__ import annotations

import re
from typing import Final

import pytest
from playwright.sync_api import expect
from tests.e2e.conftest import Visit, Visits, piece

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
    talk.scripted(*(piece(part) for part in re.findall(r"(?s).{1,7}", attack)), "[DONE]")
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
