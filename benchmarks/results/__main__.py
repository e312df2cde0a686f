"""Writes the tables of pages from the results, and keeps the result of a benchmark.

    python -m benchmarks.results                    # renews README's tables and those of pages
    python -m benchmarks.results NAME COMMAND ...   # runs a benchmark and keeps its last line

The second form writes `benchmarks/results/NAME.json`: the JSON object that the command printed as
its last line, beside command, machine, date and commit. `retrieval` and `finetune` are taken from
the pages that these benchmarks write.
"""

import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.results.figure import FILE, gains
from benchmarks.results.tables import (
    FOLDER,
    PAGES,
    ROOT,
    Figures,
    load_results,
    tables,
    with_tables,
)
from benchmarks.results.taken import finetune_figures, retrieval_figures

TAKEN: dict[str, Callable[[str], Figures]] = {
    "retrieval": retrieval_figures,
    "finetune": finetune_figures,
}


def main() -> None:
    """Keep a result if one is named; then renew what is made of results."""
    if len(sys.argv) > 2:
        keep(sys.argv[1], sys.argv[2:])
    for name, figures_of in TAKEN.items():
        take(name, figures_of)
    results = load_results()
    made = tables(results)
    for page in PAGES:
        page.write_text(with_tables(page.read_text(encoding="utf-8"), made), encoding="utf-8")
    FILE.write_text(gains(results["finetune"]["figures"]["main"]), encoding="utf-8")


def keep(name: str, command: Sequence[str]) -> None:
    """Run a benchmark, pass its output on, write its last line as a result."""
    printed = ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            sys.stdout.write(line)
            printed = line if line.strip() else printed
    if process.returncode:
        sys.exit(process.returncode)
    _write(name, {
        "what": load_results().get(name, {}).get("what", name),
        "command": shlex.join(command),
        "machine": machine(),
        "date": datetime.now(UTC).date().isoformat(),
        "commit": _git("rev-parse", "--short=12", "HEAD"),
        "figures": json.loads(printed),
    })  # fmt: skip  # in the order of the file


def take(name: str, figures_of: Callable[[str], Figures]) -> None:
    """Write a result from its page, if the figures there are others; commit and date are its."""
    page = f"docs/benchmarks/{name}.md"
    figures = figures_of((ROOT / page).read_text(encoding="utf-8"))
    known = load_results().get(name, {})
    if known.get("figures") == figures:
        return
    date, commit = _git("log", "-1", "--format=%cs %h", "--abbrev=12", "--", page).split()
    _write(name, {**known, "date": date, "commit": commit, "taken_from": page, "figures": figures})


def machine() -> str:
    """Cores, processor, memory and GPU in words."""
    facts = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    processor = next((line.split(": ")[1] for line in facts if "model name" in line), "")
    gigabytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        gpu = subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        gpu = "no GPU"
    name = processor or platform.processor()
    return f"{len(os.sched_getaffinity(0))} cores ({name}), {gigabytes:.0f} GB, {gpu}"


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _write(name: str, result: Figures) -> None:
    (FOLDER / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
