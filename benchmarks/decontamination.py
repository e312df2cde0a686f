"""Decontamination on a labelled pool: planted copies must go, rows of the same task must stay.

    python -m benchmarks.decontamination --pool pool.parquet --targets targets.jsonl

Every exemplar of every target is planted three times in a row of the pool's own making: as it is,
between other words, and with its last quarter missing. Then the whole pool and the plants are
searched. Rows of a target's own task (relevance 3) that are dropped for one of its exemplars are
false alarms, unless they hold a copy. The last line is one JSON object.
"""

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from selection.picking.decontamination import find_contaminated, item_runs

COLUMNS = ["task", "instruction", "input", "output"]


def text_of(row: Mapping[str, str | None]) -> str:
    """The turns joined by newlines."""
    parts = (row["instruction"], row["input"], row["output"])
    return "\n".join(part for part in parts if part)


def planted(text: str, filler: str) -> list[str]:
    """Three ways to copy a text."""
    words = text.split()
    return [text, f"{filler} {text} {filler}", " ".join(words[: len(words) - len(words) // 4])]


def measure(pool: pl.DataFrame, targets: Sequence[Mapping[str, object]]) -> dict[str, object]:
    """Share of plants that go, and of each target's own rows."""
    texts = [text_of(row) for row in pool.iter_rows(named=True)]
    items, files = [], []
    for number, target in enumerate(targets):
        exemplars = target["exemplars"]
        assert isinstance(exemplars, list)
        items += [text_of(exemplar) for exemplar in exemplars]
        files += [number] * len(exemplars)
    plants = [copy for text in items for copy in planted(text, "And so it went on.")]
    started = time.process_time()
    runs = item_runs(items, files)
    everything = [*texts, *plants]
    found = find_contaminated(everything, runs, len(everything))
    seconds = time.process_time() - started
    searched = np.repeat(~np.isin(np.arange(len(items)), runs.unsearched), 3)
    gone = np.isin(np.arange(len(plants)) + len(texts), found.rows)
    in_pool = found.rows < len(texts)
    tasks = np.array(pool["task"].to_list())
    own: dict[str, list[int]] = {}
    for number, target in enumerate(targets):
        names = target["tasks"]
        assert isinstance(names, list)
        relevant = np.isin(tasks, names)
        if not relevant.any():
            continue
        mine = in_pool & (np.array(files)[found.items] == number)
        own[str(target["target"])] = [int(relevant[found.rows[mine]].sum()), int(relevant.sum())]
    return {
        "rows": len(texts),
        "items": len(items),
        "items_not_searched": len(runs.unsearched),
        "planted_found": float(gone[searched].mean()),
        "planted_searched": int(searched.sum()),
        "pool_rows_dropped": int(in_pool.sum()),
        "cpu_seconds": round(seconds, 1),
        "own_task_rows_dropped": own,
    }


def main() -> None:
    """Print a table, then one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pool", type=Path, required=True)
    parser.add_argument("--targets", type=Path, required=True)
    given = parser.parse_args()
    pool = pl.read_parquet(given.pool, columns=COLUMNS)
    targets = [json.loads(line) for line in given.targets.read_text().splitlines()]
    found = measure(pool, targets)
    own = found["own_task_rows_dropped"]
    assert isinstance(own, dict)
    print(f"{'target':<28}{'own rows':>10}{'dropped':>10}{'share':>10}")
    for name, (dropped, n) in own.items():
        print(f"{name:<28}{n:>10,}{dropped:>10,}{dropped / n:>10.4%}")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
