"""A report of many picks: writing it, its size, and how soon a browser shows its first page.

    python -m benchmarks.report [--picks 50000] [--repeats 5]

The run is one of the tests' tiny model, its picks copied as often as asked. The browser is Debian's
Chromium without a window. Opening ends when the first page of picks is there to read, not when the
file is loaded. The last line is one JSON object.
"""

import argparse
import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from storage.catalog.commit import commit
from storage.files.workspace import open_workspace
from storage.report.page import write_report
from tests.catalog_fixture import make_tables, with_many_picks

FLAGS = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")
DEADLINE_MS = 60_000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--picks", type=int, default=50_000)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="saelect-report-") as folder:
        workspace = open_workspace(Path(folder))
        commit(workspace, with_many_picks(make_tables("large"), given.picks))
        started = time.perf_counter()
        file = write_report(workspace, "latest")
        written = time.perf_counter() - started
        opened = [seconds_to_open(file) for _ in range(given.repeats)]
        size = file.stat().st_size
    facts = {
        "picks": given.picks,
        "megabytes": round(size / 1e6, 1),
        "seconds_to_write": round(written, 2),
        "seconds_to_open": round(statistics.median(opened), 2),
        "seconds_to_open_least": round(min(opened), 2),
        "seconds_to_open_most": round(max(opened), 2),
    }
    for name, value in facts.items():
        print(f"{name.replace('_', ' '):<24} {value:>10,}")
    print(json.dumps(facts))


def seconds_to_open(file: Path) -> float:
    """From asking a running browser for the file until the first picks are shown."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=list(FLAGS)
        )
        page = browser.new_page()
        page.goto("about:blank")
        started = time.perf_counter()
        page.goto(file.as_uri(), wait_until="commit")
        while not page.inner_text("#pick-status", timeout=DEADLINE_MS).strip():
            if time.perf_counter() - started > DEADLINE_MS / 1000:
                raise SystemExit("the report never showed its picks")
            time.sleep(0.01)
        seconds = time.perf_counter() - started
        browser.close()
    return seconds


if __name__ == "__main__":
    main()
