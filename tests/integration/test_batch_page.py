"""The page of a batch's traces in Chromium, as a person has it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from rlm_kernel.session.batch.traces import write_index
from tests.integration.test_jupyterlab import CHROMIUM
from tests.unit.report.test_batchindex import line

BAD = "<script>window.rlmHit = 1</script><img src=x onerror='window.rlmHit = 1'>"
MANY = 300


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    assert CHROMIUM, "no Chromium: install the package chromium, or Google Chrome"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-background-networking"]
        )
        yield browser
        browser.close()


@pytest.fixture
def address(tmp_path: Path) -> str:
    rows = [
        line(
            f"q{number:03d}",
            question=BAD if number == 7 else f"Asked {number}?",
            status="failed" if number % 100 == 5 else "answered",
            error={"kind": "ModelError", "message": BAD},
            known_cost=(number * 37 % MANY) / 100,
            trace=f"q.results.traces/000/q{number:03d}.ipynb",
        )
        for number in range(MANY)
    ]
    results = tmp_path / "q.results.jsonl"
    results.write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_index(tmp_path / "q.results.traces", results)
    (tmp_path / "q.results.traces" / "000").mkdir()
    (tmp_path / "q.results.traces" / "000" / "q007.ipynb").write_text("{}")
    return (tmp_path / "q.results.traces" / "index.html").as_uri()


def shown(page: Page) -> list[str]:
    return page.evaluate(
        "() => [...document.querySelectorAll('#rows tr:not([hidden]) a')].map(a => a.textContent)"
    )


def test_rows_are_searched_chosen_by_status_and_sorted(browser: Browser, address: str) -> None:
    page = browser.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(address)
    assert len(shown(page)) == MANY
    page.fill("#find", "asked 29")
    page.get_by_text(f"11 of {MANY}", exact=True).wait_for()
    assert shown(page) == ["q029", *(f"q{number}" for number in range(290, 300))]
    page.fill("#find", "")
    page.select_option("#status", "failed")
    assert shown(page) == ["q005", "q105", "q205"]
    page.select_option("#status", "")
    cost = page.get_by_role("button", name="cost")
    cost.click()
    assert shown(page)[:2] == ["q227", "q154"], "the dearest first"
    cost.click()
    assert shown(page)[0] == "q000"
    cost.click()
    assert shown(page)[:3] == ["q000", "q001", "q002"]
    assert said == []
    page.close()


def test_nothing_that_was_said_runs_or_fetches_and_any_width_will_do(browser: Browser, address: str) -> None:
    page = browser.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    page.wait_for_load_state("networkidle")
    assert page.evaluate("() => window.rlmHit") is None
    assert asked == [address]
    assert page.locator("img, iframe").count() == 0
    for width in (375, 800, 1400):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth"), width
    page.close()


def test_the_page_is_complete_without_scripts(browser: Browser, address: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(address)
    assert page.locator("#rows tr").count() == MANY
    assert not page.locator("#search").is_visible()
    assert page.get_by_role("link", name="q007").get_attribute("href") == "000/q007.ipynb"
    context.close()
