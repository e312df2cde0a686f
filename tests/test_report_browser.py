"""Reports in a real browser: nothing from data runs, pages turn, keys work, printing says so."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from selection.core.numbers import spelled
from storage.catalog.arrow_rows import to_arrow
from storage.catalog.commit import commit
from storage.files.workspace import open_workspace
from storage.queries.lookup import list_selections
from storage.report.compare import write_comparison
from storage.report.page import write_report
from tests.catalog_fixture import make_tables
from tests.hostile_text import FLAG, PAYLOADS, TEXT, hostile_workspace

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here")
FLAGS = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync")  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of 120 picks, six pages; each shares three tokens, two of which are one chip."""
    tables = make_tables()
    why = [
        row
        for row in tables["explanation"].to_pylist()
        if row["exemplar_rank"] == 1 and row["space"] != "tokens"
    ]
    tokens = [
        {**row, "space": "tokens", "latent": number, "term": term, "contribution": 1000 + number,
         "position": number + 1,
         "share": (1000 + number) / row["numerator"]}
        for row in why if row["latent"] == -2 for number, term in enumerate("(a)")
    ]  # fmt: skip
    fired = [
        {"selection_id": row["selection_id"], "example_id": row["example_id"], "space": "tokens",
         "latent": number, "turn": 0, "first_char": row["text"].index(term),
         "end_char": row["text"].index(term) + 1, "activation": 1.0 + number}
        for row in tables["pick"].to_pylist() for number, term in enumerate("(a)")
        if row["selection_id"] == why[0]["selection_id"]
    ]  # fmt: skip
    tables["explanation"] = to_arrow("explanation", [*why, *tokens])
    tables["token_activations"] = to_arrow("token_activations", fired)
    workspace = open_workspace(tmp_path_factory.mktemp("made"))
    commit(workspace, tables)
    return write_report(workspace, "calm-otter")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A report and a comparison of the hostile run."""
    workspace = hostile_workspace(tmp_path_factory.mktemp("hostile"))
    main, *controls = list_selections(workspace)
    return {
        "report": write_report(workspace, main.selection_id),
        "comparison": write_comparison(workspace, main.selection_id, controls[0].selection_id),
    }


def until(page: Any, words: str) -> None:
    """Wait for the status to say something; the page's policy forbids Playwright's own way."""
    for _ in range(500):
        if words in page.inner_text("#pick-status"):
            return
        page.wait_for_timeout(20)
    raise AssertionError(page.inner_text("#pick-status"))


class Watched:
    """A page and what it did: requests besides itself, errors, dialogs."""

    def __init__(self, browser: Any, path: Path, **options: Any) -> None:
        self.context = browser.new_context(viewport={"width": 1400, "height": 900}, **options)
        self.page = self.context.new_page()
        self.told: list[str] = []
        self.page.on("request", lambda r: self.told.append(f"request {r.url}"))
        self.page.on("pageerror", lambda e: self.told.append(f"error {e}"))
        self.page.on("dialog", self.refuse)
        self.page.goto(path.as_uri())
        self.told.remove(f"request {path.as_uri()}")

    def refuse(self, dialog: Any) -> None:
        self.told.append("dialog")
        dialog.dismiss()


@pytest.fixture
def opened(browser: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    made: list[Watched] = []

    def open_page(path: Path, **options: Any) -> Watched:
        made.append(Watched(browser, path, **options))
        return made[-1]

    yield open_page
    for each in made:
        each.context.close()


@pytest.mark.parametrize("kind", ["report", "comparison"])
def test_a_hostile_run_executes_nothing_even_without_the_policy(
    kind: str, hostile: dict[str, Path], opened: Any
) -> None:
    seen = opened(hostile[kind], bypass_csp=True)
    page = seen.page
    for _ in range(3 if kind == "report" else 1):
        for details in page.locator("details").all():
            details.evaluate("d => { d.open = true }")
        page.mouse.wheel(0, 4000)
        for at in range(100, 900, 200):
            page.mouse.move(at, at)
        if kind == "report":
            page.keyboard.press("n")
    if kind == "report":
        page.fill("#pick-search", PAYLOADS[0])
        until(page, "45")
    page.wait_for_timeout(200)
    assert page.evaluate("window.pwned") is None
    assert seen.told == []
    outcome = page.evaluate(
        """() => ({
            handlers: [...document.querySelectorAll('*')].filter(
                (e) => [...e.attributes].some((a) => a.name.startsWith('on'))).length,
            links: [...document.querySelectorAll('[href], [src]')].filter(
                (e) => !e.getAttribute('href')?.startsWith('#')).length,
            foreign: document.querySelectorAll('img, iframe, base, object, embed, form').length,
            styles: document.querySelectorAll('style').length,
            scripts: [...document.querySelectorAll('script')].filter((s) => !s.type).length,
        })"""
    )
    scripts = 1 if kind == "report" else 0
    assert outcome == {"handlers": 0, "links": 0, "foreign": 0, "styles": 1, "scripts": scripts}
    read = " ".join(page.inner_text("body").split())
    for payload in PAYLOADS:
        assert " ".join(spelled(payload).split()) in read
    assert not set(page.content()) & set("\u202e\u202c\u2066\u2069\u200f")


def test_the_policy_runs_no_script_but_the_page_s_own(
    hostile: dict[str, Path], opened: Any
) -> None:
    page = opened(hostile["report"]).page
    page.evaluate(
        f"""() => {{
            const script = document.createElement('script');
            script.textContent = '{FLAG}';
            document.body.append(script);
            document.body.insertAdjacentHTML('beforeend', `<img src="x" onerror="{FLAG}">`);
        }}"""
    )
    page.wait_for_timeout(100)
    assert page.evaluate("window.pwned") is None
    assert page.locator(".pager button").count() == 4  # the page's own script ran


def test_pages_built_by_the_script_equal_the_static_one(report: Path, opened: Any) -> None:
    plain = opened(report, java_script_enabled=False).page.inner_html("#pick-list")
    page = opened(report).page
    page.keyboard.press("n")
    assert page.inner_text("#pick-status") == "21 to 40 of 120"
    page.keyboard.press("p")
    built = page.inner_html("#pick-list")
    # Each pick has a chip of two tokens, and its share is not that of the first of them.
    of_two = re.findall(r'data-level="\d+ \d+"><b>[^<]+</b> 2 punctuation marks<', plain)
    assert len(of_two) == 20
    # Without the script no chip can be a button; else they are the same.
    script = """html => {
        const list = document.createElement('ol');
        list.innerHTML = html;
        const shape = (node) => node.nodeType === 3 ? node.textContent.trim().replace(/\\s+/g, ' ')
            : [node.tagName.replace('BUTTON', 'SPAN'), node.className, node.dataset.rank || '',
               node.dataset.levels || '', node.dataset.level || '',
               ...[...node.childNodes].map(shape).filter((s) => s !== '' && s !== undefined)];
        return JSON.stringify(shape(list));
    }"""
    assert page.evaluate(script, built) == page.evaluate(script, plain)


def test_everything_works_from_the_keyboard(report: Path, opened: Any) -> None:
    page = opened(report).page
    rank = "document.activeElement.closest('.pick').dataset.rank"
    page.keyboard.press("j")
    page.keyboard.press("j")
    assert page.evaluate(rank) == "2"
    page.keyboard.press("ArrowDown")
    page.keyboard.press("k")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.parentElement.open")
    assert page.evaluate(rank) == "2"
    page.keyboard.press("n")
    assert page.evaluate(rank) == "21"
    page.keyboard.press("k")
    assert page.evaluate(rank) == "20"
    page.keyboard.press("/")
    page.keyboard.type("jnp open-chat")
    until(page, "No pick")
    page.fill("#pick-search", "OPEN-chat traduis")
    page.fill("#pick-search", "open-CHAT mountains")
    until(page, "that match")
    sources = page.locator("#pick-list .where b").all_inner_texts()
    assert set(sources) == {"open-chat"}
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement === document.body")
    assert page.evaluate("document.querySelectorAll('a, button, input, summary').length") > 20


def test_a_latent_shows_its_tokens_alone(hostile: dict[str, Path], opened: Any) -> None:
    page = opened(hostile["report"]).page
    marks = page.locator("#pick-list > .pick >> nth=0 >> .turns mark")
    assert marks.count() == 10
    pick = page.locator("#pick-list > .pick >> nth=0")
    levels = [marks.nth(i).get_attribute("data-levels") for i in range(10)]
    chips = pick.locator("button.chip")
    own = [(chips.nth(i).get_attribute("data-level") or "").split() for i in range(chips.count())]
    # A chip whose latents have no marked token here is no button.
    of_all = pick.locator(".chip[data-level]")
    assert of_all.count() > len(own) >= 2
    for i in range(of_all.count()):
        places = (of_all.nth(i).get_attribute("data-level") or "").split()
        assert (places in own) == any(level[int(at)] != "0" for level in levels for at in places)
    for i, places in enumerate(own):
        before = [marks.nth(n).get_attribute("class") for n in range(10)]
        chips.nth(i).click()
        shown = [marks.nth(n).get_attribute("class") for n in range(10)]
        strongest = [max(int(level[int(at)]) for at in places) for level in levels]
        assert shown == [f"f{-(-level * 4 // 9)}" for level in strongest]
        chips.nth(i).click()
        assert [marks.nth(n).get_attribute("class") for n in range(10)] == before
    assert marks.first.get_attribute("class") == marks.first.get_attribute("data-heat") == "f4"


def test_without_script_the_first_page_is_there_and_says_so(report: Path, opened: Any) -> None:
    page = opened(report, java_script_enabled=False).page
    assert page.locator("#pick-list > .pick").count() == 20
    assert "Without its script this page shows the first 20 picks" in page.inner_text("#picks")
    assert not page.locator(".tools").is_visible()


def test_print_shows_one_page_of_picks_and_says_so(report: Path, opened: Any) -> None:
    page = opened(report).page
    page.emulate_media(media="print")
    assert "Printed: picks 1 to 20 of 120" in page.inner_text("#print-note")
    assert not page.locator(".toc").is_visible()
    page.keyboard.press("n")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert "ranks 21 to 40" in page.inner_text("#print-note")
    assert len(page.pdf()) > 10_000


@pytest.mark.parametrize("width", [400, 1400])
def test_no_width_cuts_anything_off(width: int, hostile: dict[str, Path], opened: Any) -> None:
    for path in hostile.values():
        page = opened(path).page
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") == width
    assert TEXT
