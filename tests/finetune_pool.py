"""A small labelled pool with tasks of very different answers, and targets in it."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from selection.evaluation.labelled import LabelledPool, read_labelled_pool
from tests.tiny_model import arithmetic, code, translation, write_jsonl

N_ROWS = 240


def mood(i: int) -> tuple[str, str]:
    """One of two answers."""
    return f"The {_NOUNS[i % 40]} number {i} was {'kind' if i % 3 else 'rude'}", (
        "good" if i % 3 else "bad"
    )


_NOUNS = [f"{a}{b}" for a in ("cat", "tree", "boat", "lamp", "road") for b in "abcdefgh"]
TASKS = {"arithmetic": arithmetic, "translation": translation, "code": code, "mood": mood}


def row(i: int) -> dict[str, Any]:
    """Row i: four tasks in turn."""
    task = list(TASKS)[i % 4]
    question, answer = TASKS[task](i)
    return {
        "id": f"row-{i:03d}", "task": task, "family": task, "category": task,
        "label_quality": "gold", "instruction": f"{question} (case {_NOUNS[i % 40]} {i})",
        "input": "", "output": answer,
    }  # fmt: skip


def write_files(folder: Path, more: list[dict[str, Any]] | None = None) -> tuple[Path, Path]:
    """A pool, shuffled, and targets of two tasks; more: rows besides."""
    rows = [row(i) for i in np.random.default_rng(0).permutation(N_ROWS).tolist()] + (more or [])
    pq.write_table(pa.Table.from_pylist(rows), folder / "pool.parquet")
    targets = [
        {
            "target": task, "kind": "T1", "category": task, "tasks": [task], "families": [task],
            "exemplars": [row(1000 + 4 * k + list(TASKS).index(task)) for k in range(3)],
        }
        for task in ("arithmetic", "mood")
    ]  # fmt: skip
    return folder / "pool.parquet", write_jsonl(folder / "targets.jsonl", targets)


def labelled_pool() -> LabelledPool:
    """The pool, read."""
    with tempfile.TemporaryDirectory() as folder:
        return read_labelled_pool(write_files(Path(folder))[0])
