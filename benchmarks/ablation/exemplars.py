"""Targets files with fewer exemplars, or with some that belong to another target."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.ablation.cells import Exemplars
from selection.core.hashing import content_id
from storage.files.atomic import write_bytes


def changed_targets(targets: Path, change: Exemplars, folder: Path) -> Path:
    """The targets file with a change made to every target; the file itself where there is none."""
    if change == Exemplars():
        return targets
    lines = [json.loads(line) for line in targets.read_text(encoding="utf-8").splitlines()]
    changed = [
        {**line, "exemplars": changed_exemplars(lines, number, change)}
        for number, line in enumerate(lines)
    ]
    text = "".join(json.dumps(line) + "\n" for line in changed)
    file = folder / f"targets-{content_id(asdict(change))}.jsonl"
    write_bytes(file, text.encode())
    return file


def changed_exemplars(
    targets: Sequence[Mapping[str, Any]], number: int, change: Exemplars
) -> list[Any]:
    """Exemplars of one target after the change; drawn anew for every target and seed."""
    rng = np.random.default_rng([change.seed, number])
    own = list(targets[number]["exemplars"])
    kept = np.sort(rng.permutation(len(own))[: change.n or len(own)])
    chosen = [own[i] for i in kept]
    others = [t for t in range(len(targets)) if t != number]
    for position in rng.permutation(len(chosen))[: change.noise]:
        foreign = targets[others[rng.integers(len(others))]]["exemplars"]
        chosen[position] = foreign[rng.integers(len(foreign))]
    return chosen if change.answers else [{**each, "output": ""} for each in chosen]
