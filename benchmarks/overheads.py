"""What the orchestration costs: a run in which everything is cached, the server, one task.

Run: python -m benchmarks.overheads [--quick]. Starts `saelect serve` in a new workspace, fills it
with one run of the packaged demonstration from its page's deployment, then starts the same run
again and again: with all six of its targets, and with one of them. Times are those of the server:
the click is the call that the page makes.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flows.server.settings import environment
from tests.server_harness import Served, serving

DEPLOYMENT = "select-data/select-data"
PAGE = {
    "pool": "demo:pool.jsonl",
    "exemplars": "demo:exemplars.jsonl",
    "budget": {"unit": "examples", "amount": 40},
    "preset": "best",
    "advanced": {"rendering": {"max_length": 512}},
}
DEMO = Path(__file__).parents[1] / "flows" / "demo"
TARGET = "sql"
RUN_SECONDS = 600.0
N_TASKS = 200
EMPTY_TASKS = """
import sys, time
import flows  # Prefect's settings, before it is imported
from prefect import flow, task
from prefect.cache_policies import NO_CACHE

@task(cache_policy=NO_CACHE)
def nothing() -> None: ...

@flow
def many(n: int) -> float:
    begun = time.perf_counter()
    for _ in range(n):
        nothing()
    return (time.perf_counter() - begun) / n

print(many(int(sys.argv[1])))
"""


@dataclass(frozen=True)
class Timed:
    """Seconds of one run; tasks by name."""

    to_pending: float
    to_running: float
    running: float
    click_to_end: float
    tasks: Mapping[str, float]


def main() -> None:
    """Measure, print a table and, as the last line, one JSON object."""
    parser = argparse.ArgumentParser(description="what the orchestration costs")
    parser.add_argument("--quick", action="store_true", help="three cached runs instead of seven")
    n_runs = 3 if parser.parse_args().quick else 7
    with tempfile.TemporaryDirectory(prefix="saelect-overheads-") as folder:
        root = Path(folder)
        one = {**PAGE, "exemplars": str(exemplars_of_one_target(root))}
        with serving(root) as server:
            fresh = server.seconds_to_start
            first, first_of_one = timed(server, PAGE), timed(server, one)
            cached = [timed(server, PAGE) for _ in range(n_runs)]
            single = [timed(server, one) for _ in range(n_runs)]
            per_task = seconds_per_task(server)
        with serving(root) as server:
            known = server.seconds_to_start
    show("six targets", first, cached)
    show("one target", first_of_one, single)
    print(f"server, new database       {fresh:6.1f} s\nserver, existing database  {known:6.1f} s")
    print(f"one empty task             {per_task * 1000:6.1f} ms")
    medians = {
        "cached_running_to_completed": middle([run.running for run in cached]),
        "cached_click_to_completed": middle([run.click_to_end for run in cached]),
        "one_target_running_to_completed": middle([run.running for run in single]),
        "one_target_click_to_completed": middle([run.click_to_end for run in single]),
        "first_running_to_completed": round(first.running, 2),
        "per_task": round(per_task, 4),
        "server_start_new": round(fresh, 1),
        "server_start_existing": round(known, 1),
    }
    print(json.dumps(medians))


def exemplars_of_one_target(folder: Path) -> Path:
    """A file with the demonstration's exemplars of TARGET alone."""
    lines = (DEMO / "exemplars.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    file = folder / "one-target.jsonl"
    of_target = [line for line in lines if json.loads(line)["target"] == TARGET]
    file.write_text("".join(of_target), encoding="utf-8")
    return file


def timed(server: Served, page: Mapping[str, Any]) -> Timed:
    """Start a run as the page does, wait, and read the server's clock."""
    clicked = datetime.now(UTC)
    run_id = server.start_run(DEPLOYMENT, page)
    state = server.wait_for_end(run_id, RUN_SECONDS)
    if state["type"] != "COMPLETED":
        raise SystemExit(f"the run ended as {state['type']}: {state.get('message')}")
    states = server.ask("GET", f"/flow_run_states/?flow_run_id={run_id}")
    at = {each["type"]: moment(each["timestamp"]) for each in states}
    query = {"flow_runs": {"id": {"any_": [run_id]}}, "limit": 100}
    tasks = server.ask("POST", "/task_runs/filter", query)
    return Timed(
        to_pending=(at["PENDING"] - clicked).total_seconds(),
        to_running=(at["RUNNING"] - at["PENDING"]).total_seconds(),
        running=(at["COMPLETED"] - at["RUNNING"]).total_seconds(),
        click_to_end=(at["COMPLETED"] - clicked).total_seconds(),
        tasks={task["name"].rsplit("-", 1)[0]: task_seconds(task) for task in tasks},
    )


def task_seconds(task: Mapping[str, Any]) -> float:
    """From the start to the end of a task run."""
    return (moment(task["end_time"]) - moment(task["start_time"])).total_seconds()


def moment(text: str) -> datetime:
    """A time as the API writes it."""
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def seconds_per_task(server: Served) -> float:
    """An empty task of an empty flow against the same server."""
    variables = {**environment(server.settings), "PREFECT_LOGGING_LEVEL": "ERROR"}
    command = [sys.executable, "-c", EMPTY_TASKS, str(N_TASKS)]
    ended = subprocess.run(command, env=variables, stdout=subprocess.PIPE, text=True, check=True)
    return float(ended.stdout.split()[-1])


def show(what: str, first: Timed, cached: Sequence[Timed]) -> None:
    """Where the seconds of a cached run go, with the spread; the first run beside it."""
    rows = {
        "click until the worker has it": [run.to_pending for run in cached],
        "process and imports": [run.to_running for run in cached],
        **{
            f"  task {name}": [run.tasks.get(name, 0.0) for run in cached]
            for name in sorted(first.tasks, key=lambda name: -cached[0].tasks.get(name, 0.0))
        },
        "  pages, artifacts, states": [run.running - sum(run.tasks.values()) for run in cached],
        "Running to Completed": [run.running for run in cached],
        "click to Completed": [run.click_to_end for run in cached],
    }
    title = f"{what}, cached, {len(cached)} times"
    print(f"{title:<34} {'median':>7} {'least':>7} {'most':>7}")
    for name, values in rows.items():
        print(f"{name:<34} {middle(values):>7.2f} {min(values):>7.2f} {max(values):>7.2f}")
    print(f"first such run: Running to Completed {first.running:.1f} s")


def middle(values: Sequence[float]) -> float:
    """Median, to hundredths."""
    return round(statistics.median(values), 2)


if __name__ == "__main__":
    main()
