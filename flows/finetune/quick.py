"""The packaged pool with its families as labels: a small benchmark that needs no file."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from flows.stages.prepare.inputs import packaged
from storage.files.atomic import write_atomically, write_bytes

QUICK: dict[str, Any] = {
    "arms": ("zero", "random", "best", "oracle"),
    "budget_tokens": (2000,),
    "seeds": 1,
    "held_out": 40,
}
"""What `--quick` asks for besides its files and targets."""

TARGETS = ("word_problems", "sql")


def write_quick_files(folder: Path) -> tuple[Path, Path]:
    """Write a labelled pool and a targets file of the packaged ones; returns both."""
    rows = []
    for row in _lines("pool"):
        turns = [turn for turn in row["messages"] if turn["role"] != "system"]
        if [turn["role"] for turn in turns] == ["user", "assistant"]:
            rows.append({"id": row["id"], **_labels(row["family"]), **_texts(turns)})
    targets = [
        {
            "target": line["target"],
            "kind": "T1",
            "category": line["target"],
            "tasks": [line["target"]],
            "families": [],
            "exemplars": [{"id": e["id"], **_texts(e["messages"])} for e in line["exemplars"]],
        }
        for line in _lines("exemplars")
        if line["target"] in TARGETS
    ]
    pool, file = folder / "pool.parquet", folder / "targets.jsonl"
    table = pa.Table.from_pylist(rows)
    write_atomically(pool, lambda temp: pq.write_table(table, temp))
    write_bytes(file, "".join(json.dumps(line) + "\n" for line in targets).encode())
    return pool, file


def _lines(name: str) -> list[dict[str, Any]]:
    path = Path(packaged(f"demo:{name}.jsonl"))
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _labels(family: str) -> dict[str, str]:
    return {"task": family, "family": family, "category": family, "label_quality": "gold"}


def _texts(turns: list[dict[str, Any]]) -> dict[str, str]:
    users = [turn["content"] for turn in turns if turn["role"] == "user"]
    return {"instruction": users[-1], "input": "", "output": turns[-1]["content"]}
