"""`rempart.console.pages`: what is served, under which policy, and what the files themselves may not do."""

from __future__ import annotations

import hashlib
import json
import re
from importlib.resources import files
from pathlib import Path

import pytest

from rempart.console.pages import CONTENT_SECURITY_POLICY, Page, Pages

STATIC = Path(str(files("rempart.console") / "static"))
OURS = sorted(path for path in STATIC.iterdir() if path.is_file())
VENDORED = sorted((STATIC / "vendor").glob("*.js"))
AT = {"/": "index.html", "/audit": "audit.html"}
PATHS = [*AT, *(f"/static/{path.relative_to(STATIC)}" for path in [*OURS, *VENDORED] if path.suffix != ".html")]


@pytest.fixture(scope="module")
def pages() -> Pages:
    return Pages()


def got(pages: Pages, path: str, if_none_match: str = "") -> Page:
    page = pages.page(path, if_none_match)
    assert page is not None
    return page


def header(page: Page, name: bytes) -> str:
    (value,) = [value for given, value in page.headers if given == name]
    return value.decode()


# What is served


@pytest.mark.parametrize("path", PATHS)
def test_every_page_is_whole_and_says_what_it_is(pages: Pages, path: str) -> None:
    page = got(pages, path)
    file = STATIC / AT.get(path, path.removeprefix("/static/"))
    assert (page.status, page.body) == (200, file.read_bytes())
    kinds = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
    assert header(page, b"content-type").split(";")[0] == kinds[file.suffix]


@pytest.mark.parametrize("path", PATHS)
def test_every_page_carries_the_policy(pages: Pages, path: str) -> None:
    for page in (got(pages, path), got(pages, path, "*")):
        assert header(page, b"content-security-policy") == CONTENT_SECURITY_POLICY.decode()
        assert header(page, b"x-content-type-options") == "nosniff"
        assert header(page, b"referrer-policy") == "no-referrer"
        assert header(page, b"cross-origin-opener-policy") == "same-origin"
        assert header(page, b"cross-origin-resource-policy") == "same-origin"


def test_the_policy_allows_this_server_only_and_nothing_inline() -> None:
    rules = dict(rule.split(" ", 1) for rule in CONTENT_SECURITY_POLICY.decode().split("; "))
    assert set(rules.values()) == {"'self'", "'none'"}
    assert {name for name, value in rules.items() if value == "'self'"} == {
        "script-src",
        "style-src",
        "img-src",
        "connect-src",
    }
    assert {"default-src", "base-uri", "form-action", "frame-ancestors"} <= rules.keys()


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/static",
        "/static/",
        "/static/index.html",
        "/static/audit.html",
        "/audit/",
        "/static/nothing.js",
        "/static/vendor",
        "/static/vendor/VENDOR.md",
        "/static/../pages.py",
        "/static/../../errors.py",
        "/static/vendor/../app.js",
        "/static//app.js",
        "//static/app.js",
        "/static/%2e%2e/pages.py",
        "/static/..\\pages.py",
        "/static/app.js\0",
        "/static/APP.JS",
        "/etc/passwd",
    ],
)
def test_no_other_path_leads_anywhere(pages: Pages, path: str) -> None:
    assert pages.page(path, "") is None
    assert pages.page(path, "*") is None


# What a browser already has


def test_the_tag_is_strong_and_of_the_bytes(pages: Pages) -> None:
    page = got(pages, "/")
    assert header(page, b"etag") == f'"{hashlib.sha256(page.body).hexdigest()}"'
    assert header(page, b"cache-control") == "no-cache"


@pytest.mark.parametrize("form", ["{}", "W/{}", '"other", {}', '{} , "other"', "*"])
def test_what_did_not_change_is_not_sent_again(pages: Pages, form: str) -> None:
    etag = header(got(pages, "/static/app.js"), b"etag")
    page = got(pages, "/static/app.js", form.format(etag))
    assert (page.status, page.body, header(page, b"etag")) == (304, b"", etag)


@pytest.mark.parametrize("given", ["", '"other"', "W/", "nonsense", ","])
def test_what_changed_is_sent(pages: Pages, given: str) -> None:
    assert got(pages, "/static/app.js", given).status == 200


def test_no_two_pages_share_a_tag(pages: Pages) -> None:
    assert len({header(got(pages, path), b"etag") for path in PATHS}) == len(PATHS)


# What the files may not do


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.name)
def test_our_files_name_no_other_server(path: Path) -> None:
    text = path.read_text().replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert not re.search(r"""["'(]\s*(?:\w+:)?//\w|https?://|@import""", text)


@pytest.mark.parametrize("name", AT.values())
def test_the_page_has_nothing_inline(name: str) -> None:
    html = (STATIC / name).read_text()
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", html)
    assert not re.findall(r"<script(?![^>]*\ssrc=)", html)


@pytest.mark.parametrize("path", [path for path in OURS if path.suffix == ".js"], ids=lambda path: path.name)
def test_our_scripts_turn_no_text_into_markup_or_code(path: Path) -> None:
    forbidden = r"\.innerHTML|\.outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|\.style\b|\.cssText"
    assert not re.search(forbidden, path.read_text())


def test_everything_the_page_and_its_modules_load_is_served(pages: Pages) -> None:
    loaded: set[str] = set()
    for name in AT.values():
        loaded |= set(re.findall(r'(?:src|href)="(/static/[^"]+)"', (STATIC / name).read_text()))
    for path in OURS:
        if path.suffix == ".js":
            loaded |= {f"/static/{name}" for name in re.findall(r'from "\./([^"]+)"', path.read_text())}
    assert {"/static/style.css", "/static/app.js", "/static/words.js"} <= loaded
    assert all(pages.page(path, "") for path in loaded)


@pytest.mark.parametrize("path", VENDORED, ids=lambda path: path.name)
def test_a_vendored_library_is_the_one_that_is_named(path: Path) -> None:
    (row,) = [
        line for line in (STATIC / "vendor/VENDOR.md").read_text().splitlines() if line.startswith(f"| {path.name}")
    ]
    assert row.split("|")[-2].strip() == hashlib.sha256(path.read_bytes()).hexdigest()


# What it says, in both languages


@pytest.fixture(scope="module")
def words() -> dict[str, dict[str, str]]:
    text = (STATIC / "words.js").read_text()
    read: dict[str, dict[str, str]] = json.loads(text[text.index("{") : text.rindex("}") + 1])
    return read


def test_both_languages_say_the_same_things(words: dict[str, dict[str, str]]) -> None:
    assert list(words) == ["en", "fr"]
    assert list(words["en"]) == list(words["fr"])
    for key, text in words["en"].items():
        other = words["fr"][key]
        assert text.strip() == text, key
        assert other.strip() == other, key
        assert text, key
        assert other, key
        assert set(re.findall(r"\{\w+\}", text)) == set(re.findall(r"\{\w+\}", other)), key


@pytest.mark.parametrize("name", AT.values())
def test_the_page_is_written_with_the_english_words(words: dict[str, dict[str, str]], name: str) -> None:
    html = (STATIC / name).read_text()
    said = re.findall(r'data-word="(\w+)"[^>]*>([^<]*)<', html)
    assert len(said) > 10
    assert [(key, words["en"].get(key)) for key, _ in said] == said


# What it looks like: WCAG 2.2, sections 1.4.3 and 1.4.11

TEXT = [
    ("text", "ground"),
    ("text", "surface"),
    ("text", "sunken"),
    ("text", "bad-ground"),
    ("muted", "ground"),
    ("muted", "surface"),
    ("accent", "ground"),
    ("accent", "surface"),
    ("on-accent", "accent"),
    ("on-accent", "accent-strong"),
    ("good", "surface"),
    ("wait", "surface"),
    ("bad", "surface"),
    ("bad", "bad-ground"),
]
EDGES = [("edge", "surface"), ("edge", "ground"), ("accent", "ground"), ("bad", "surface")]


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    dark, light = sorted([luminance(one), luminance(other)])
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_colours_are_apart_enough_to_read(theme: str) -> None:
    style = (STATIC / "style.css").read_text()
    blocks = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", blocks[["light", "dark"].index(theme)]))
    poor = {
        (front, back): round(contrast(colours[front], colours[back]), 2)
        for pairs, least in ((TEXT, 4.5), (EDGES, 3.0))
        for front, back in pairs
        if contrast(colours[front], colours[back]) < least
    }
    assert not poor
