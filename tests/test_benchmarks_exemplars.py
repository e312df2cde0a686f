"""Changed exemplars of the benchmark of few and noisy ones, counted by hand."""

import json
from pathlib import Path
from typing import Any

from benchmarks.ablation.cells import Exemplars
from benchmarks.ablation.exemplars import changed_targets
from benchmarks.exemplars import NOISY, WHOLE, average, table, tally, without
from tests.tiny_model import write_jsonl


def exemplar(name: str) -> dict[str, str]:
    return {"input": name, "output": f"answer to {name}"}


def lines_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_foreign_and_named_exemplars_are_counted_and_left_out(tmp_path: Path) -> None:
    targets = [
        {"target": name, "exemplars": [exemplar(f"{name}{n}") for n in range(5)]} for name in "ab"
    ]
    original = write_jsonl(tmp_path / "targets.jsonl", targets)
    changed = changed_targets(original, Exemplars(noise=2), tmp_path)
    foreign = {
        line["target"]: [
            n for n, e in enumerate(line["exemplars"]) if not e["input"].startswith(line["target"])
        ]
        for line in lines_of(changed)
    }
    assert [len(each) for each in foreign.values()] == [2, 2]
    own = next(n for n in range(5) if n not in foreign["a"])
    named = {"a": {foreign["a"][0], own}}
    assert tally(original, changed, named) == (4, 1, 6, 1)
    rest = lines_of(without(changed, named))
    assert [len(line["exemplars"]) for line in rest] == [3, 5]
    assert rest[0]["exemplars"] == [
        each for n, each in enumerate(lines_of(changed)[0]["exemplars"]) if n not in named["a"]
    ]
    everyone = {"b": set(range(5))}
    assert lines_of(without(changed, everyone)) == lines_of(changed)


def test_exemplars_lose_their_answers_alone(tmp_path: Path) -> None:
    targets = [{"target": "a", "exemplars": [exemplar("a1"), exemplar("a2")]}]
    original = write_jsonl(tmp_path / "targets.jsonl", targets)
    [line] = lines_of(changed_targets(original, Exemplars(answers=False), tmp_path))
    assert line["exemplars"] == [{"input": "a1", "output": ""}, {"input": "a2", "output": ""}]


def test_the_table_has_means_over_draws_and_what_best_loses() -> None:
    noisy = average([{"best": {"x": 0.5, "y": 0.3}}, {"best": {"x": 0.7, "y": 0.1}}])
    whole = {"best": {"x": 0.8, "y": 0.6}, "bm25": {"x": 0.4, "y": 0.2}}
    rows = table({WHOLE: whole, NOISY: noisy}).splitlines()
    assert rows[2] == f"| {WHOLE} | 0.700 | 0.300 |  |"
    assert rows[3] == f"| {NOISY} | 0.400 |  | 0.300 [0.200, 0.400] |"
