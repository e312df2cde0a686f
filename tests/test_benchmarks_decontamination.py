"""Figures of the benchmark of decontamination, on rows small enough to count."""

import numpy as np
import polars as pl

from benchmarks.decontamination import measure


def test_plants_are_found_and_the_pool_stays() -> None:
    rng = np.random.default_rng(0)

    def words(n: int) -> str:
        return " ".join(f"w{w}" for w in rng.integers(0, 5_000, n))

    def row(task: str, instruction: str) -> dict[str, str]:
        texts = {"instruction": instruction, "input": words(30), "output": words(25)}
        return {"id": words(1), "task": task, **texts}

    instructions = {"a": words(12), "b": words(9)}
    pool = pl.DataFrame([row(task, instructions[task]) for task in ("a", "b") for _ in range(200)])
    exemplars = {task: [row(task, text) for _ in range(4)] for task, text in instructions.items()}
    targets = [
        {"target": task, "tasks": [task], "exemplars": rows} for task, rows in exemplars.items()
    ]
    result = measure(pool, targets)
    assert result["pool_rows_dropped"] == 0
    assert result["items_not_searched"] == 0
    found = result["found"]
    assert isinstance(found, dict)
    assert set(found.values()) == {1.0}
    copy = {**row("c", ""), "input": exemplars["a"][1]["input"]}
    assert measure(pool.vstack(pl.DataFrame([copy])), targets)["pool_rows_dropped"] == 1
