"""Compare reductions, weights and spaces on stored vectors: mean nDCG@1000 over target tasks.

python -m benchmarks.spaces.grid --pool P --targets T --subpool S --vectors DIR [--only TEXT]
Every cell goes to `DIR/grid.jsonl` as it comes, and is not computed twice. Vectors are those of
`benchmarks.spaces.vectors`. Prints a readable table and one JSON object.
"""

import argparse
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.demo_quality.grading import ndcg
from benchmarks.spaces.cells import CELLS, Cell
from benchmarks.spaces.data import SETTINGS, Labelled, load
from benchmarks.spaces.vectors import load_rows
from selection.lexical import token_rows, word_rows
from selection.records import Rendered, SparseRows
from selection.reductions import prepare, score, score_each, take_turns
from selection.row_kernels import weighted_norms
from selection.spaces import Joint, Space
from selection.sparse import document_frequency, take
from selection.weights import latent_weights


@dataclass(frozen=True)
class Stored:
    """Vectors and labels of one setting."""

    labelled: Labelled
    setting: str
    folder: Path
    vocabulary: int

    @cached_property
    def spaces(self) -> dict[str, SparseRows]:
        """Space -> vectors of the rows, then of the exemplars."""
        kinds = ("mean", "max", "sum")
        found = {how: load_rows(self.folder / f"{self.setting}-{how}.npz") for how in kinds}
        rows, exemplars = self.labelled.messages(self.setting)
        found["words"] = word_rows(
            "\n".join(turn["content"] for turn in turns) for turns in rows + exemplars
        )
        with np.load(self.folder / f"{self.setting}-rendered.npz") as stored:
            parts = np.split(stored["tokens"], stored["ends"][1:-1])
        samples = [Rendered(t, np.ones(len(t), bool), len(t), False, False) for t in parts]
        found["tokens"] = token_rows(samples, self.vocabulary)
        return found

    def split(self, space: str) -> tuple[SparseRows, SparseRows]:
        """(vectors of the pool's rows, of the exemplars)."""
        rows, n = self.spaces[space], len(self.labelled.frame)
        return take(rows, np.arange(n)), take(rows, np.arange(n, len(rows)))


def scores_of(cell: Cell, stored: Stored) -> NDArray[np.float64]:
    """(n_targets, n) scores."""
    names = [space for space, _ in cell.spaces]
    pairs = [stored.split(name) for name in names]
    counts = [
        (document_frequency(rows), int((np.diff(rows.indptr) > 0).sum())) for rows, _ in pairs
    ]
    found = np.zeros((len(stored.labelled.targets), len(stored.labelled.frame)))
    candidates, norms = None, None
    for target in range(len(found)):
        mine = np.flatnonzero(stored.labelled.owners == target)
        exemplars = [take(each, mine) for _, each in pairs]
        spaces = [
            Space(
                name,
                latent_weights(
                    cell.weights, frequency, n, own, smoothing=cell.smoothing,
                    max_document_frequency=cell.max_df,
                ),
                factor,
                square_root=name in cell.square_root,
            )
            for (name, factor), (frequency, n), own in zip(
                cell.spaces, counts, exemplars, strict=True
            )
        ]  # fmt: skip
        joint = Joint(spaces, normalize=cell.normalize)
        if candidates is None or "contrast" in cell.weights:
            candidates = joint.rows([rows for rows, _ in pairs])
            norms = weighted_norms(candidates, joint.weights)
        queries = prepare(
            joint.rows(exemplars), joint.weights, cell.reduction,
            best=cell.best, n_clusters=cell.n_clusters,
        )  # fmt: skip
        if cell.reduction == "round_robin":
            order = take_turns(score_each(candidates, queries), np.ones(len(candidates), bool))
            found[target, order.rows] = -np.arange(len(order.rows))
        else:
            found[target] = score(candidates, queries, norms=norms)
    return found


def measure(cell: Cell, stored: Stored) -> dict[str, object]:
    """Mean nDCG@1000 over all targets, and by kind."""
    scores, grades = scores_of(cell, stored), stored.labelled.grades()
    kinds = np.array([target["kind"][:2] for target in stored.labelled.targets])
    each = [ndcg(s, g) for s, g in zip(scores, grades, strict=True)]
    return {
        "cell": cell.name,
        "setting": stored.setting,
        "all": float(np.mean(each)),
        **{kind: float(np.mean(np.array(each)[kinds == kind])) for kind in ("T1", "T2")},
        "each": each,
    }


def main() -> None:
    """Measure what is not in the file yet, then print everything."""
    parser = argparse.ArgumentParser(description="reductions, weights and spaces")
    for name in ("pool", "targets", "vectors"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--subpool", type=Path)
    parser.add_argument("--vocabulary", type=int, default=4096)
    parser.add_argument("--only", default="", help="cells whose name holds this")
    parser.add_argument("--setting", choices=SETTINGS, action="append")
    arguments = parser.parse_args()
    labelled = load(arguments.pool, arguments.targets, arguments.subpool)
    file = arguments.vectors / "grid.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    done = {(line["cell"], line["setting"]): line for line in map(json.loads, lines)}
    for setting in arguments.setting or SETTINGS:
        stored = Stored(labelled, setting, arguments.vectors, arguments.vocabulary)
        for cell in CELLS:
            if arguments.only in cell.name and (cell.name, setting) not in done:
                result = measure(cell, stored)
                done[cell.name, setting] = result
                with file.open("a") as out:
                    out.write(json.dumps(result) + "\n")
                print(
                    setting,
                    cell.name,
                    *(f"{result[k]:.4f}" for k in ("T1", "T2", "all")),
                    flush=True,
                )
    table = {f"{setting} {cell}": line["all"] for (cell, setting), line in done.items()}
    print(json.dumps(table))


if __name__ == "__main__":
    main()
