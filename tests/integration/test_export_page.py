"""The exported web page in Chromium, as a person has it, and with all that a stranger's trace may hold."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from rlm_kernel.engine.events import CellFinished
from rlm_kernel.report import markup
from rlm_kernel.report.html import html
from rlm_kernel.trace.reader import read_trace
from rlm_kernel.trace.writer import NotebookWriter
from tests.integration.test_jupyterlab import CHROMIUM
from tests.support.engine import stream
from tests.support.hostile_page import hostile_trace, tangled
from tests.support.trace import STORY, call, meta, result, tell

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    assert CHROMIUM, "no Chromium: install the package chromium, or Google Chrome"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-background-networking"]
        )
        yield browser
        browser.close()


def test_nothing_of_a_strangers_trace_runs_fetches_or_breaks_out(browser: Browser, tmp_path: Path) -> None:
    trace = read_trace(hostile_trace(tmp_path / "t.ipynb"))
    page_file = tmp_path / "page.html"
    page_file.write_text(
        html(trace, [read_trace(hostile_trace(tmp_path / "child.ipynb"))]), "utf-8", "replace"
    )
    page = browser.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(page_file.as_uri())
    page.evaluate("() => { for (const one of document.querySelectorAll('details')) one.open = true; }")
    page.fill("#find", "onerror")
    page.press("#find", "Enter")
    page.wait_for_load_state("networkidle")
    assert page.evaluate("() => window.rlmHit") is None
    assert [url for url in asked if not url.startswith("data:")] == [page_file.as_uri()]
    assert page.locator("script, style").count() == 2
    assert page.locator("iframe, svg, base, link, object, embed, math").count() == 0
    attributes = (
        "() => [...document.querySelectorAll('*')].flatMap(one => [...one.attributes].map(a => a.name))"
    )
    assert not [name for name in page.evaluate(attributes) if name.startswith("on") or name == "style"]
    links = page.evaluate("() => [...document.links].map(a => a.href)")
    assert not [link for link in links if not link.startswith(("https://", "http://", "mailto:", "file://"))]
    assert page.evaluate("() => document.querySelector('footer').parentElement === document.body")
    for width in (375, 800, 1400):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth"), width
    page.close()


def test_html_out_of_order_stays_in_its_place(browser: Browser) -> None:
    parts = [
        f"<section class=html id=f{seed}>{markup.fragment(tangled(seed))}</section><i id=s{seed}></i>"
        for seed in range(3_000)
    ]
    page = browser.new_page()
    page.set_content(f"<!doctype html><main>{''.join(parts)}</main><footer></footer>")
    strayed = page.evaluate(
        "() => [...Array(3000).keys()].filter(n => { const f = document.getElementById('f' + n), "
        "s = document.getElementById('s' + n); return !(f.nextSibling === s && s.parentElement.tagName === 'MAIN' "
        "&& !s.childNodes.length); })"
    )
    assert [tangled(seed) for seed in strayed] == []
    assert page.evaluate("() => document.querySelector('main').childNodes.length") == 6_000
    page.close()


@pytest.fixture
def plain_page(tmp_path: Path) -> Path:
    calls = (call(1), call(2, answer=None, error="The model timed out.", error_type="ModelError"))
    story = [
        CellFinished(1, result("turn-01-a", "x", outputs=[stream("all İİ behind\n")], calls=calls))
        if isinstance(event, CellFinished) and event.result.cell_id == "turn-01-a"
        else event
        for event in STORY
    ]
    writer = NotebookWriter(tmp_path / "t.ipynb", meta("Which needle?\nSay it."), ())
    tell(writer, story)
    page = tmp_path / "a page #1.html"
    page.write_text(html(read_trace(tmp_path / "t.ipynb")), "utf-8")
    return page


def test_a_search_finds_what_is_folded_and_goes_from_hit_to_hit(browser: Browser, plain_page: Path) -> None:
    page = browser.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(plain_page.as_uri())
    folded = page.locator("details.calls").first
    assert not folded.evaluate("one => one.open")
    page.fill("#find", "THE MODEL TIMED")
    page.get_by_text("1 of 1", exact=True).wait_for()
    assert folded.evaluate("one => one.open")
    assert page.locator(".here").inner_text().count("timed out") >= 1
    page.fill("#find", "BEHIND")
    page.press("#find", "Enter")
    assert page.evaluate("[...CSS.highlights.get('found')].join()") == "behind"
    page.fill("#find", "count")
    page.press("#find", "Enter")
    assert page.inner_text("#found").startswith("1 of")
    page.press("#find", "Enter")
    assert page.inner_text("#found").startswith("2 of")
    page.fill("#find", "there is no such word")
    page.get_by_text("not found", exact=True).wait_for()
    assert said == []
    page.close()


def test_words_of_a_table_are_not_broken_in_a_narrow_window(browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_text(html(read_trace(NOTEBOOKS / "classify.ipynb")), "utf-8")
    page = browser.new_page(viewport={"width": 375, "height": 900})
    page.goto(file.as_uri())
    heads = page.locator(".answer th")
    heights = {round(heads.nth(number).bounding_box()["height"]) for number in range(heads.count())}  # type: ignore[index]
    assert heads.count() == 5
    assert max(heights) < 40  # one line of text
    assert page.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth")
    page.close()


def test_the_page_is_complete_without_scripts(browser: Browser, plain_page: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(plain_page.as_uri())
    assert "About 5." in page.inner_text(".answer")
    assert not page.locator("#search").is_visible()
    page.locator("details.calls > summary").first.click()
    assert page.get_by_text("The model timed out.").first.is_visible()
    context.close()
