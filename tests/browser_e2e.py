"""A person's way through the pages, in a real browser, and a stranger's in another tab.

Run: python -m tests.browser_e2e [pages] [api] [second]; without a name all of them. `pages` starts
`saelect serve` on a free port, drives Debian's Chromium with Playwright, keeps screenshots at 1280
and 400 pixels in .build/e2e/, and fails if a page asks for anything that is not on this machine.
`api` waits for a schedule and an automation, cancels, retries and restarts the server. `second`
deploys `prefect.yaml` on a server of Prefect's own.
"""

import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

from playwright.sync_api import Page, Response, expect, sync_playwright
from playwright.sync_api import TimeoutError as PlaywrightTimeout

from storage.files.workspace import Workspace
from storage.queries.sql import run_sql
from tests.faults_job import write_config
from tests.second_server import deploy_and_run
from tests.server_harness import Served, serving, start_serving, stop_serving

OUT = Path(".build/e2e")
RUN_S, PAGE_MS, SUBMIT_MS, SCHEDULE_S = 900.0, 120_000, 60_000, 150.0
LOGS_S = 15.0
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
HOSTILE = """<!doctype html><title>hostile</title><script>
const target = "TARGET", run = JSON.stringify({state: {type: "SCHEDULED"}});
const attempts = {
  read: () => fetch(target + "/api/deployments/filter", {method: "POST", credentials: "include",
    headers: {"content-type": "application/json"}, body: "{}"}).then(r => r.text()),
  start: () => fetch(target + "/api/deployments/DEPLOYMENT/create_flow_run",
    {method: "POST", mode: "no-cors", credentials: "include", body: run}).then(r => r.text()),
  listen: () => new Promise((yes, no) => { const s = new WebSocket(target.replace("http", "ws")
    + "/api/events/out"); s.onopen = () => yes("open"); s.onerror = () => no("refused"); }),
  frame: () => new Promise((yes, no) => { const f = document.createElement("iframe");
    f.src = target + "/deployments"; document.body.append(f); f.onload = () => {
      try { yes(f.contentDocument.body.innerHTML) } catch (error) { no("refused") } }; }),
};
window.outcome = (async () => { const outcome = {};
  for (const [name, attempt] of Object.entries(attempts))
    outcome[name] = await attempt().catch(error => "refused");
  return outcome; })();
</script><body>"""


STEPS = ("pages", "api", "second")


def main(steps: Sequence[str]) -> None:
    """Walk these steps; exit 1 with a reason where one breaks."""
    OUT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="saelect-e2e-") as folder:
        root = Path(folder) / "workspace"
        root.mkdir()
        write_config(root)
        if "pages" in steps:
            chromium = shutil.which("chromium")
            if chromium is None:
                raise SystemExit("e2e: no chromium here; on Debian: apt-get install chromium")
            with serving(root) as server:
                in_the_browser(server, chromium)
        if "api" in steps:
            with serving(root) as server:
                run_id = through_the_api(server)
            survives_a_restart(server, run_id)
        if "second" in steps:
            deploy_and_run(Path(folder) / "second", root / "pool.jsonl")
    say(f"e2e: passed ({', '.join(steps)}); screenshots in {OUT}")


def in_the_browser(server: Served, chromium: str) -> None:
    """The pages, and a page of another origin."""
    urls: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        page = browser.new_context(viewport={"width": 1280, "height": 1500}).new_page()
        page.set_default_timeout(PAGE_MS)
        page.on("request", lambda request: urls.append(request.url))
        page.on("response", tell_refusal)
        walk(page, server)
        with hostile_page(server) as url:
            stranger = page.context.new_page()  # of the same browser, with the same cookies
            stranger.goto(url)
            outcome = stranger.evaluate("window.outcome")
        browser.close()
    if len(server.runs()) > 1 or set(outcome.values()) - {"refused", ""}:
        raise SystemExit(f"e2e: a page of another origin got through: {outcome}")
    say(f"e2e: a page of another origin: {outcome}")
    outside = sorted({host for host in map(outside_host, urls) if host})
    if outside:
        raise SystemExit(f"e2e: the pages asked other hosts: {', '.join(outside)}")


@contextmanager
def hostile_page(server: Served) -> Iterator[str]:
    """The address of a page on another port that tries to use the server."""
    deployment = server.ask("GET", "/deployments/name/select-data/select-data")["id"]
    with tempfile.TemporaryDirectory() as folder:
        text = HOSTILE.replace("TARGET", server.url).replace("DEPLOYMENT", deployment)
        (Path(folder) / "index.html").write_text(text)
        handler = partial(SimpleHTTPRequestHandler, directory=folder)
        with ThreadingHTTPServer(("127.0.0.1", 0), handler) as other:
            Thread(target=other.serve_forever, daemon=True).start()
            yield f"http://127.0.0.1:{other.server_port}/"
            other.shutdown()


def walk(page: Page, server: Served) -> None:
    """Fill `select-data`, start it, read what it leaves, and be refused a bad budget."""
    url, pool = server.url, str(server.workspace / "pool.jsonl")
    deployment = server.ask("GET", "/deployments/name/select-data/select-data")["id"]
    page.goto(url)
    page.get_by_label("Password").wait_for()
    shot(page, "0-password")
    page.goto(server.link)
    page.goto(f"{url}/deployments")
    page.get_by_text("select-data", exact=True).first.wait_for()
    shot(page, "1-deployments")
    form = f"{url}/deployments/deployment/{deployment}/run"
    page.goto(form)
    fill(page, pool, "demo:exemplars.jsonl", "12")
    shot(page, "2-form")
    run_id = submit(page)
    say(f"e2e: started {run_id}")
    begun = time.monotonic()
    ended = server.wait_for_end(run_id, RUN_S)
    say(f"e2e: {ended['type']} after {time.monotonic() - begun:.0f} s")
    if ended["type"] != "COMPLETED":
        for log in (server.workspace / ".server").glob("*.log"):
            shutil.copy(log, OUT)
        message = ended.get("message")
        raise SystemExit(f"e2e: the run ended as {ended['type']} ({message}); logs in {OUT}")
    query = f"SELECT trigger FROM run WHERE flow_run_id = '{run_id}'"
    triggers = run_sql(Workspace(server.workspace), query).to_pylist()
    if triggers != [{"trigger": "ui"}]:
        raise SystemExit(f"e2e: the catalog does not say what started the run: {triggers}")
    page.goto(f"{url}/runs/flow-run/{run_id}")
    page.get_by_text("demonstration model", exact=True).first.wait_for()
    shot(page, "3-logs")
    page.get_by_text("Artifacts", exact=True).first.click()  # The address cannot name a tab.
    page.get_by_text("selection-", exact=False).first.wait_for()
    shot(page, "4-run")
    read_artifact_and_report(page, server, run_id)
    page.goto(form)
    fill(page, pool, "demo:exemplars.jsonl", "-3")
    page.get_by_role("button", name="Submit").click()
    reason = page.get_by_text(re.compile("minimum|greater than", re.IGNORECASE)).first
    message = reason.inner_text()  # before the picture: the message leaves by itself
    shot(page, "7-refused")
    say(f"e2e: a budget of -3 is refused: {message}")


def through_the_api(server: Served) -> str:
    """A schedule fires; a run is cancelled and retried; a failed run says why in its logs."""
    path = f"/deployments/{server.deployment('prepare-pool/prepare-pool')['id']}"
    parameters = {"pool": str(server.workspace / "pool.jsonl")}
    server.ask("PATCH", path, {"parameters": parameters, "description": "Ours."})
    server.ask("POST", f"{path}/schedules", [{"schedule": {"cron": "* * * * *"}, "active": True}])
    begun = time.monotonic()
    while not any(
        run["auto_scheduled"] and run["state_type"] == "COMPLETED" for run in server.runs()
    ):
        if time.monotonic() - begun > SCHEDULE_S:
            raise SystemExit("e2e: the schedule did not fire")
        time.sleep(1)
    say(f"e2e: a schedule fired and its run completed after {time.monotonic() - begun:.0f} s")
    starts_by_an_automation(server, parameters)
    config = {"config_path": str(server.workspace / "faults.yaml")}
    run_id = server.start_run("select-data-from-config/select-data-from-config", config)
    time.sleep(5)
    server.cancel(run_id)
    expect_state(server, run_id, "CANCELLED")
    server.retry(run_id)
    time.sleep(1)
    expect_state(server, run_id, "COMPLETED")
    wrong = {**config, "overrides": {"pool.path": str(server.workspace / "nowhere.jsonl")}}
    failed = server.start_run("select-data-from-config/select-data-from-config", wrong)
    expect_state(server, failed, "FAILED")
    begun = time.monotonic()  # a run sends its Logs every two seconds, and the last ones as it ends
    while not any("nowhere.jsonl" in log["message"] for log in server.logs(failed)):
        if time.monotonic() - begun > LOGS_S:
            raise SystemExit(f"e2e: the Logs of a failed run do not say why: {server.logs(failed)}")
        time.sleep(0.5)
    return run_id


def starts_by_an_automation(server: Served, parameters: Mapping[str, str]) -> None:
    """Whoever prepares a pool gets the plan of a selection."""
    prepare = server.deployment("prepare-pool/prepare-pool")["id"]
    plan = server.deployment("plan/plan")["id"]
    form = {**parameters, "exemplars": "demo:exemplars.jsonl", "budget": {"amount": 5}}
    automation = {
        "name": "plan what was prepared",
        "trigger": {
            "type": "event",
            "posture": "Reactive",
            "expect": ["prefect.flow-run.Completed"],
            "match_related": {
                "prefect.resource.role": "deployment",
                "prefect.resource.id": f"prefect.deployment.{prepare}",
            },
            "threshold": 1,
            "within": 0,
        },
        "actions": [{"type": "run-deployment", "deployment_id": plan, "parameters": form}],
    }
    made = server.ask("POST", "/automations/", automation)
    server.start_run("prepare-pool/prepare-pool", parameters)
    begun = time.monotonic()
    while not (planned := [run for run in server.runs() if run["deployment_id"] == plan]):
        if time.monotonic() - begun > SCHEDULE_S:
            raise SystemExit("e2e: the automation started nothing")
        time.sleep(1)
    server.ask("DELETE", f"/automations/{made['id']}")
    say(f"e2e: an automation started {planned[0]['name']}")
    expect_state(server, planned[0]["id"], "COMPLETED")


def survives_a_restart(before: Served, run_id: str) -> None:
    """The team's schedule, description and parameters, and the past runs."""
    server = start_serving(before.workspace, before.port)
    try:
        deployment = server.deployment("prepare-pool/prepare-pool")
        kept = (
            [schedule["active"] for schedule in deployment["schedules"]],
            deployment["description"],
            bool(deployment["parameters"]),
            server.state(run_id)["type"],
        )
    finally:
        stop_serving(server)
    if kept != ([True], "Ours.", True, "COMPLETED"):
        raise SystemExit(f"e2e: a restart of serve changed what the team had set: {kept}")
    say("e2e: schedule, description, parameters and runs survived a restart")


def expect_state(server: Served, run_id: str, expected: str) -> None:
    """Wait for the end of a run. Exits if it is another one."""
    state = server.wait_for_end(run_id, RUN_S)
    if state["type"] != expected:
        raise SystemExit(f"e2e: {state['type']} instead of {expected}: {state.get('message')}")
    say(f"e2e: {expected}")


def fill(page: Page, pool: str, exemplars: str, amount: str) -> None:
    """The fields that must be filled; all others stay as they are."""
    page.get_by_text("Amount", exact=True).first.wait_for()
    for label, value in (("Pool", pool), ("Exemplars", exemplars), ("Amount", amount)):
        # A section's box holds the labels of its fields too; the innermost box comes last.
        named = page.locator("label", has_text=re.compile(f"^\\s*{label}\\s*$"))
        field = page.locator(".p-label").filter(has=named).last.locator("textarea, input").first
        field.fill(value)
        expect(field).to_have_value(value)


def read_artifact_and_report(page: Page, server: Served, run_id: str) -> None:
    """The page of the selection, with its plot, and the report that it links to."""
    url = server.url
    artifact = next(a for a in server.artifacts(run_id) if a["key"].startswith("selection-"))
    page.goto(f"{url}/artifacts/artifact/{artifact['id']}")
    plot = page.get_by_alt_text("score curve").first
    plot.wait_for()
    if not plot.evaluate("image => image.naturalWidth > 0"):
        raise SystemExit("e2e: the score curve is not drawn")
    shot(page, "5-selection")
    link = page.get_by_role("link", name="Report").first.get_attribute("href") or ""
    page.goto(url + urlsplit(link).path)
    page.get_by_role("heading").first.wait_for()
    shot(page, "6-report")
    page.goto(f"{url}/artifacts/artifact/{artifact['id']}")
    train = page.get_by_role("link", name="train.jsonl").first.get_attribute("href") or ""
    if page.request.get(url + urlsplit(train).path).status != 200:
        raise SystemExit(f"e2e: the training file is not served: {train}")


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
        shown = page.locator(".p-message, .p-form-group__error, .p-label__message")
        texts = shown.all_inner_texts()
        raise SystemExit(f"e2e: the page started no run; it says {texts}") from None
    if made.value.status >= 400:
        raise SystemExit(f"e2e: the page's run is refused: {made.value.text()[:500]}")
    return str(made.value.json()["id"])


def outside_host(url: str) -> str | None:
    """The host of a request that left this machine."""
    parts = urlsplit(url)
    local = parts.scheme in ("data", "blob") or parts.hostname in ("127.0.0.1", "localhost")
    return None if local else parts.hostname


def tell_refusal(response: Response) -> None:
    """Say which call of the page the server refused."""
    if response.status >= 400 and "/api/" in response.url:
        say(f"e2e: {response.status} {urlsplit(response.url).path}")


def shot(page: Page, name: str) -> None:
    """Screenshots at both widths, kept as build output; the narrow one is of a page of its own."""
    page.wait_for_timeout(1500)
    page.screenshot(path=OUT / f"{name}-1280.png")
    narrow = page.context.new_page()
    narrow.set_viewport_size({"width": 400, "height": 900})
    narrow.goto(page.url)
    narrow.wait_for_timeout(2500)
    narrow.screenshot(path=OUT / f"{name}-400.png")
    narrow.close()


def say(line: str) -> None:
    """One line to standard output, at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:] or STEPS)
