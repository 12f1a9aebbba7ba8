"""Each template of a retention class can be used as it stands, and says where its number comes from."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path

import pytest

from rempart.config.load import load
from rempart.ledger.keys.retention import parse

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = sorted((DOCS / "retention").glob("*.md"))
LEAST_MONTHS = {"gdpr-cnil": 6, "hipaa": 72, "ai-act": 6, "dora": 60, "hds-secnumcloud": 6, "sec-17a-4": 72}


def block(page: Path) -> str:
    [found] = re.findall(r"```toml\n(.*?)```", page.read_text(), re.DOTALL)
    return str(found)


def test_every_law_has_its_page_and_its_link() -> None:
    assert {page.stem for page in PAGES} == set(LEAST_MONTHS)
    configuration = (DOCS / "configuration.md").read_text()
    for page in PAGES:
        assert f"(retention/{page.name})" in configuration


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_its_block_is_a_configuration_that_uses_the_class(page: Path, tmp_path: Path) -> None:
    file = tmp_path / "rempart.toml"
    file.write_text(block(page))
    settings = load({}, {}, file).settings
    assert settings.ledger.retention == page.stem
    assert set(settings.retention) == {"standard", "audit", page.stem}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_its_days_are_enough_in_every_year(page: Path, tmp_path: Path) -> None:
    file = tmp_path / "rempart.toml"
    file.write_text(block(page))
    one = parse(load({}, {}, file).settings.retention)[page.stem]
    for year in range(2026, 2034):
        for month in range(1, 13):
            months = month - 1 + LEAST_MONTHS[page.stem]
            until = date(year + months // 12, months % 12 + 1, 1)
            assert one.last_day(date(year, month, 1).isoformat()) >= until


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_it_says_why_that_long_and_what_of_erasure(page: Path) -> None:
    text = page.read_text()
    [days] = re.findall(r"^days = (\d+)$", text, re.MULTILINE)
    assert f"**Why {days}.**" in text
    [worm] = re.findall(r"^worm = (\w+)$", text, re.MULTILINE)
    assert f"`worm = {worm}`" in text
    assert "**Clause.**" in text
