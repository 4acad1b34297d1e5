"""The page in a real browser: Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mixup_hf import OfflineMixup
from mixup_hf.explorer import server
from mixup_hf.explorer.labelled_set import LabelledSet
from mixup_hf.explorer.session import Session

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no browser: `apt-get install chromium` as root installs one"
)
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
PATIENCE = 120_000  # ms; the machine may be busy


class Browser:
    """A page that has been opened, and what it asked for."""

    def __init__(self, page: Any, session: Session) -> None:
        self.page, self.session = page, session
        self.requests: list[str] = []
        page.on("request", lambda request: self.requests.append(request.url))

    def tab(self, name: str) -> None:
        self.page.get_by_role("tab", name=name).click()

    def press(self, button: str, key: str) -> None:
        """Press a key on a button of a tab that was just opened, until the page has sent it.

        A tab is drawn before its buttons do anything.
        """
        from playwright.sync_api import TimeoutError as NothingSent

        for _ in range(10):
            self.page.focus(button)
            try:
                with self.page.expect_request(lambda each: "/queue/join" in each.url, timeout=5000):
                    self.page.keyboard.press(key)
                return
            except NothingSent:
                continue
        raise AssertionError(f"{key} on {button} sends nothing")

    def counts(self, selector: str, number: int) -> None:
        """Wait until the page has so many of something: it draws anew when rows are made."""
        self.page.wait_for_function(
            "([each, number]) => document.querySelectorAll(each).length === number",
            arg=[selector, number],
        )

    def rows(self) -> None:
        """Have 8 generated rows, in whichever process this test runs."""
        self.tab("Your data set")
        heading = self.page.locator("#mx-heading")
        if self.session.review is None or not self.session.review.drafts:
            self.press("#mx-generate", "Enter")
            heading.get_by_text("8 open").wait_for()

    def sentence(self) -> str:
        return str(self.page.locator("#mx-sweep .mx-stop:visible .mx-sentence").inner_text())

    def lam(self) -> Any:
        return self.page.locator("#mx-lam input[type=range]")


@pytest.fixture(scope="module")
def opened(
    labelled_set: LabelledSet, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Browser]:
    sync = pytest.importorskip("playwright.sync_api")
    pytest.importorskip("gradio")
    labelled_set.committee_ready = False
    mixup, folder = labelled_set.mixup, tmp_path_factory.mktemp("kept")
    session = Session(mixup.inverter, mixup.config, labelled_set, folder / "kept.jsonl")
    with server.serving(session, port=0) as url, sync.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = chromium.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(PATIENCE)
        browser = Browser(page, session)
        page.goto(url)
        # Votes are the last thing to appear.
        page.locator("#mx-sweep .mx-votes:visible").wait_for()
        yield browser
        chromium.close()


def test_the_sentence_follows_the_slider_without_asking_the_server(opened: Browser) -> None:
    assert opened.page.locator("#mx-sweep .mx-stop:visible").count() == 1
    before = opened.sentence()
    opened.requests.clear()
    opened.lam().focus()
    stops = opened.session.sweep(*opened.session.texts(0), 3, 0).stops
    assert before == stops[5].best.text
    for stop in stops[6:]:
        opened.page.keyboard.press("ArrowRight")
        opened.page.locator("#mx-sweep .mx-stop:visible .mx-sentence").get_by_text(
            stop.best.text, exact=True
        ).wait_for()
    assert opened.requests == []
    shown = opened.page.locator("#mx-sweep .mx-stop:visible")
    assert "λ asked 1.00" in shown.inner_text()
    assert shown.locator(".mx-cards li").count() == 3
    assert shown.locator(".mx-words li").count() == 4
    assert opened.page.locator("#mx-live").inner_text().startswith("λ 1.00: ")


def test_the_committee_votes_when_it_is_asked(opened: Browser) -> None:
    votes = opened.page.locator("#mx-sweep .mx-stop:visible .mx-votes")
    assert "all members" not in votes.inner_text()
    opened.page.click("#mx-ask")
    votes.get_by_text("all members").wait_for()
    assert {"encoder member", "knn member", "knn judge"} <= set(
        votes.locator("th").all_inner_texts()
    )


def test_an_error_is_a_sentence_on_the_page(opened: Browser) -> None:
    opened.page.fill("#mx-a textarea", " ")
    opened.page.click("#mx-mix")
    alert = opened.page.locator("#mx-mix-status [role=alert]")
    alert.wait_for()
    assert alert.inner_text() == "Both texts are needed: one of them is empty."
    opened.page.fill("#mx-a textarea", "<b>the film</b>")
    opened.page.click("#mx-mix")
    alert.wait_for(state="detached")
    assert opened.sentence()
    assert "Traceback" not in opened.page.content()


def test_rows_are_reviewed_with_the_keyboard(opened: Browser) -> None:
    page = opened.page
    opened.tab("Your data set")
    opened.press("#mx-generate", "Enter")
    heading = page.locator("#mx-heading")
    heading.get_by_text("8 open").wait_for()
    page.fill("#mx-text textarea", "the new film star")
    page.focus("#mx-keep")
    page.keyboard.press("Enter")
    heading.get_by_text("1 kept").wait_for()
    assert "Row 2 of 8" in heading.inner_text()
    page.focus("#mx-reject")
    page.keyboard.press("Space")
    heading.get_by_text("1 rejected").wait_for()
    page.click("#mx-export")
    status = page.locator("#mx-export-status")
    status.get_by_text("1 row written to").wait_for()
    file = opened.session.output
    assert str(file) in status.inner_text()
    data = opened.session.data
    assert data is not None
    (row,) = OfflineMixup(file, data.texts, data.table.labels).producer.rows
    assert row.text == "the new film star"
    with page.expect_download() as download:
        page.click("#mx-download")
    assert Path(download.value.path()).read_text() == file.read_text()


def test_the_map_is_read_with_clicks_and_keys(opened: Browser) -> None:
    page = opened.page
    opened.rows()
    opened.tab("Map")
    page.locator("#mx-map svg").wait_for()
    opened.counts("#mx-map circle", 24)
    opened.counts("#mx-map path.mx-p", 8)
    ring = page.locator("#mx-map circle").first
    ring.click(force=True)
    read = page.locator("#mx-read")
    here = page.locator("#mx-map .mx-here")
    assert here.get_attribute("data-text") in read.inner_text()
    page.focus("#mx-map svg")
    page.keyboard.press("ArrowDown")
    assert "generated row" in read.inner_text() and "Parent: " in read.inner_text()
    assert page.locator("#mx-map .mx-lines line").count() == 2
    first = here.get_attribute("data-n")
    page.keyboard.press("ArrowRight")
    assert here.get_attribute("data-n") != first
    page.locator("#mx-map .mx-key").first.click()
    assert page.locator("#mx-map .mx-k0:visible").count() == 0


@pytest.mark.parametrize("dark", [False, True])
def test_the_page_fits_a_phone_and_needs_no_network(opened: Browser, dark: bool) -> None:
    page = opened.page
    page.set_viewport_size({"width": 390, "height": 844})
    page.emulate_media(color_scheme="dark" if dark else "light")
    page.wait_for_function(f"document.body.classList.contains('dark') === {str(dark).lower()}")
    for name in ("Mix two texts", "Your data set", "Map"):
        opened.tab(name)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, name
    local = re.compile(r"(http://127\.0\.0\.1:|data:|blob:)")
    assert [url for url in opened.requests if not local.match(url)] == []
