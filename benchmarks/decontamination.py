"""Decontamination on a labelled pool: planted copies must go, everything else must stay.

    python -m benchmarks.decontamination --pool pool.parquet --targets targets.jsonl

Every exemplar of every target is planted in several ways in rows of the pool's own making: whole,
between other words, with its last quarter missing; and its question with the answer of another
task: as it stands, without the instruction (where other exemplars of the target have it too), and
under another task's instruction. Then the whole
pool and the plants are searched. The pool holds none of the exemplars, so every row of it that is
dropped is a false alarm, unless it holds a copy. The last line is one JSON object.
"""

import argparse
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from selection.picking.decontamination import find_contaminated
from selection.picking.item_runs import item_runs

COLUMNS = ["id", "task", "instruction", "input", "output"]
Row = Mapping[str, str]


def lines(*parts: str) -> str:
    """Turns joined by newlines, as the pool's texts are."""
    return "\n".join(part for part in parts if part)


def text_of(row: Row) -> str:
    """Instruction, input and answer."""
    return lines(row["instruction"], row["input"], row["output"])


def planted(row: Row, other: Row, *, is_shared: bool) -> dict[str, str]:
    """Ways to copy a row; `other` is of another task.

    is_shared: whether other exemplars have the row's instruction; else it is part of the question.
    """
    text = text_of(row)
    bare = row["input"] if is_shared and row["input"] else lines(row["instruction"], row["input"])
    words = text.split()
    filler = "And so it went on."
    return {
        "whole": text,
        "embedded": f"{filler} {text} {filler}",
        "last quarter cut off": " ".join(words[: len(words) - len(words) // 4]),
        "question, other answer": lines(row["instruction"], row["input"], other["output"]),
        "bare question, other answer": lines(bare, other["output"]),
        "other instruction and answer": lines(other["instruction"], bare, other["output"]),
    }


def measure(pool: pl.DataFrame, targets: Sequence[Mapping[str, object]]) -> dict[str, object]:
    """Shares of plants that go, by the way of planting, and rows of the pool that go with them."""
    texts = [text_of(row) for row in pool.iter_rows(named=True)]
    rows: list[Row] = []
    files: list[int] = []
    for number, target in enumerate(targets):
        exemplars = target["exemplars"]
        assert isinstance(exemplars, list)
        rows += [{name: row[name] or "" for name in COLUMNS} for row in exemplars]
        files += [number] * len(exemplars)
    others = [rows[(i + len(rows) // 2) % len(rows)] for i in range(len(rows))]
    n_with = Counter(zip(files, (row["instruction"] for row in rows), strict=True))
    plants = [
        planted(row, other, is_shared=n_with[file, row["instruction"]] > 1)
        for row, other, file in zip(rows, others, files, strict=True)
    ]
    started = time.process_time()
    runs = item_runs([(lines(r["instruction"], r["input"]), r["output"]) for r in rows], files)
    everything = [*texts, *(text for each in plants for text in each.values())]
    result = find_contaminated(everything, runs, len(everything))
    seconds = time.process_time() - started
    ways = list(plants[0])
    dropped = np.isin(np.arange(len(plants) * len(ways)) + len(texts), result.rows)
    by_way = dropped.reshape(-1, len(ways))
    searched = ~np.isin(np.arange(len(rows)), runs.unsearched)
    n_pool = int((result.rows < len(texts)).sum())
    names = [str(target["target"]) for target in targets]
    of_file = np.array(files)
    tasks = np.array(pool["task"].to_list())
    by_target = {}
    for number, target in enumerate(targets):
        own_tasks = target["tasks"]
        assert isinstance(own_tasks, list)
        own = np.isin(tasks, own_tasks)
        alarms = result.rows[:n_pool][of_file[result.items[:n_pool]] == number]
        by_target[names[number]] = {
            "items": int((of_file == number).sum()),
            "searched": int(searched[of_file == number].sum()),
            "questions_found": float(by_way[(of_file == number) & searched, 3:].mean()),
            "rows": len(alarms),
            "own_rows": int(own[alarms].sum()),
            "n_own_rows": int(own.sum()),
        }
    return {
        "pool_rows": len(texts),
        "items": len(rows),
        "items_not_searched": int((~searched).sum()),
        "found": {way: float(by_way[searched, i].mean()) for i, way in enumerate(ways)},
        "found_of_all": {way: float(by_way[:, i].mean()) for i, way in enumerate(ways)},
        "pool_rows_dropped": n_pool,
        "cpu_seconds": round(seconds, 1),
        "by_target": by_target,
        "dropped": [
            (names[of_file[item]], texts[row][:300], text_of(rows[item])[:300])
            for row, item in zip(
                result.rows[:n_pool].tolist(), result.items[:n_pool].tolist(), strict=True
            )
        ],
    }


def main() -> None:
    """Print a table, then one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pool", type=Path, required=True)
    parser.add_argument("--targets", type=Path, required=True)
    parser.add_argument("--quick", action="store_true", help="every tenth row of the pool")
    parser.add_argument("--show", action="store_true", help="print what is dropped of the pool")
    given = parser.parse_args()
    pool = pl.read_parquet(given.pool, columns=COLUMNS).fill_null("")
    if given.quick:
        pool = pool.gather_every(10)
    targets = [json.loads(line) for line in given.targets.read_text().splitlines()]
    result = measure(pool, targets)
    for name, text, item in result.pop("dropped"):  # type: ignore[attr-defined]
        if given.show:
            print(f"--- {name}\nrow:  {text!r}\nitem: {item!r}")
    print(f"{'target':<28}{'searched':>10}{'questions':>10}{'rows':>8}{'own rows':>10}{'of':>8}")
    by_target = result["by_target"]
    assert isinstance(by_target, dict)
    for name, each in by_target.items():
        print(
            f"{name:<28}{each['searched']:>7}/{each['items']:<2}{each['questions_found']:>10.3f}"
            f"{each['rows']:>8,}{each['own_rows']:>10,}{each['n_own_rows']:>8,}"
        )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
