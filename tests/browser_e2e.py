"""A person's way through the pages, in a real browser: fill, start, wait, read, be refused.

Run: python -m tests.browser_e2e. Starts `saelect serve` on a free port, drives Debian's Chromium
with Playwright, keeps a screenshot of every step in .build/e2e/, and fails if a page asks
for anything that is not on this machine.
"""

import re
import shutil
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from playwright.sync_api import Page, Response, expect, sync_playwright
from playwright.sync_api import TimeoutError as PlaywrightTimeout

from tests.server_harness import Served, serving

OUT = Path(".build/e2e")
RUN_S, PAGE_MS, SUBMIT_MS = 900.0, 120_000, 60_000
# Without these Chromium itself calls home at every start.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def main() -> None:
    """Walk the whole way; exit 1 with a reason where it breaks."""
    chromium = shutil.which("chromium")
    if chromium is None:
        raise SystemExit("e2e: no chromium here; on Debian: apt-get install chromium")
    OUT.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="saelect-e2e-") as folder,
        serving(Path(folder)) as server,
    ):
        asked: list[str] = []
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
            page = browser.new_page(viewport={"width": 1400, "height": 1500})
            page.set_default_timeout(PAGE_MS)
            page.on("request", lambda request: asked.append(request.url))
            page.on("response", tell_refusal)
            walk(page, server)
            browser.close()
    outside = sorted({host for host in map(outside_host, asked) if host})
    if outside:
        raise SystemExit(f"e2e: the pages asked other hosts: {', '.join(outside)}")
    say(f"e2e: passed; {len(asked)} requests, all to this machine; screenshots in {OUT}")


def walk(page: Page, server: Served) -> None:
    """Fill `select-data`, start it, read what it leaves, and be refused a bad budget."""
    url = server.url
    deployment = server.ask("GET", "/deployments/name/select-data/select-data")["id"]
    page.goto(f"{url}/deployments")
    page.get_by_text("select-data", exact=True).first.wait_for()
    shot(page, "1-deployments")
    form = f"{url}/deployments/deployment/{deployment}/run"
    page.goto(form)
    fill(page, "demo:pool.jsonl", "demo:exemplars.jsonl", "40")
    shot(page, "2-form")
    run_id = submit(page)
    say(f"e2e: started {run_id}")
    begun = time.monotonic()
    ended = server.wait_for_end(run_id, RUN_S)
    say(f"e2e: {ended['type']} after {time.monotonic() - begun:.0f} s")
    if ended["type"] != "COMPLETED":
        for log in (server.workspace / ".server").glob("*.log"):
            shutil.copy(log, OUT)
        told = ended.get("message")
        raise SystemExit(f"e2e: the run ended as {ended['type']} ({told}); logs in {OUT}")
    page.goto(f"{url}/runs/flow-run/{run_id}")
    page.get_by_text("Artifacts", exact=True).first.click()  # The address cannot name a tab.
    page.get_by_text("selection-", exact=False).first.wait_for()
    shot(page, "3-run")
    read_artifact_and_report(page, server, run_id)
    page.goto(form)
    fill(page, "demo:pool.jsonl", "demo:exemplars.jsonl", "-3")
    page.get_by_role("button", name="Submit").click()
    reason = page.get_by_text(re.compile("minimum|greater than", re.IGNORECASE)).first
    reason.scroll_into_view_if_needed()
    shot(page, "6-refused")
    say(f"e2e: a budget of -3 is refused: {reason.inner_text()}")


def fill(page: Page, pool: str, exemplars: str, amount: str) -> None:
    """The fields that must be filled; the preset and everything under Advanced stay as they are."""
    page.get_by_text("Amount", exact=True).first.wait_for()
    for label, value in (("Pool", pool), ("Exemplars", exemplars), ("Amount", amount)):
        # A section's box holds the labels of its fields too; the innermost box comes last.
        named = page.locator("label", has_text=re.compile(f"^\\s*{label}\\s*$"))
        field = page.locator(".p-label").filter(has=named).last.locator("textarea, input").first
        field.fill(value)
        expect(field).to_have_value(value)


def read_artifact_and_report(page: Page, server: Served, run_id: str) -> None:
    """The page of the selection, with its plot, and the report that it links to."""
    url, found = server.url, server.artifacts(run_id)
    artifact = next(a for a in found if a["key"].startswith("selection-"))
    page.goto(f"{url}/artifacts/artifact/{artifact['id']}")
    plot = page.get_by_alt_text("score curve").first
    plot.wait_for()
    if not plot.evaluate("image => image.naturalWidth > 0"):
        raise SystemExit("e2e: the score curve is not drawn")
    shot(page, "4-selection")
    link = page.get_by_role("link", name="Report").first.get_attribute("href") or ""
    page.goto(url + urlsplit(link).path)
    page.get_by_role("heading").first.wait_for()
    shot(page, "5-report")
    for folder in ("reports", "exports"):
        if httpx.get(f"{url}/saelect/{folder}/").status_code != 200:
            raise SystemExit(f"e2e: {folder} are not served")


def submit(page: Page) -> str:
    """Press Submit and return the id of the run that the page has made."""
    button = page.get_by_role("button", name="Submit")
    try:
        with page.expect_response(
            lambda answer: answer.url.endswith("/create_flow_run"), timeout=SUBMIT_MS
        ) as made:
            button.click()
    except PlaywrightTimeout:
        shot(page, "failed-submit")
        told = page.locator(".p-message, .p-form-group__error, .p-label__message").all_inner_texts()
        raise SystemExit(f"e2e: the page started no run; it says {told}") from None
    if made.value.status >= 400:
        raise SystemExit(f"e2e: the page's run is refused: {made.value.text()[:500]}")
    return str(made.value.json()["id"])


def outside_host(url: str) -> str | None:
    """The host of a request that left this machine."""
    parts = urlsplit(url)
    local = parts.scheme in ("data", "blob") or parts.hostname in ("127.0.0.1", "localhost")
    return None if local else parts.hostname


def tell_refusal(response: Response) -> None:
    """Say which call of the page the server refused, and why."""
    if response.status >= 400 and "/api/" in response.url:
        say(f"e2e: {response.status} {urlsplit(response.url).path} {response.text()[:300]}")


def shot(page: Page, name: str) -> None:
    """A screenshot, kept as build output."""
    page.wait_for_timeout(1500)
    page.screenshot(path=OUT / f"{name}.png", full_page=True)


def say(line: str) -> None:
    """One line to standard output, at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
