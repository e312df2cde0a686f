r"""What keeping only the largest latents of a sample saves on disk, and what it does to rankings.

    python -m benchmarks.keep_top --pool pool.parquet --targets targets.jsonl --subpool ids.txt \
        --workspace DIR [--quick]

One forward pass makes the vectors of all settings of `representation.keep_top`; a killed run goes
on where it was. Each setting ranks the pool for every target twice: as the preset `best` does, with
tokens beside the SAE, and by the SAE alone, which shows what tokens would hide. `--quick` takes the
first 300 rows. docs/benchmarks/keep-top.md has the tables of a whole run. The last line of the
output is one JSON object, setting -> numbers.
"""

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
import yaml
from numpy.typing import NDArray

from benchmarks.support.labelled_arguments import labelled_parser
from flows.benchmark.methods import Method, find_methods
from flows.benchmark.scorers import Scorers
from flows.benchmark.setting import BenchPool
from flows.config.data import UnderTest
from flows.orchestration.terminal import table_text
from selection.evaluation.labelled import (
    LabelledPool,
    LabelledTarget,
    read_labelled_pool,
    read_labelled_targets,
)
from selection.evaluation.labelled import Setting as SettingName
from selection.evaluation.metrics import Interval, bootstrap_mean, measure, order_by_score
from storage.files.atomic import write_bytes
from storage.files.workspace import Workspace, open_workspace
from storage.pools.shards import open_shards

KEPT = (None, 2048, 1024, 512, 256, 128, 64)
RANKINGS = {"best": {}, "SAE alone": {"spaces": ["sae"]}}
TOP_SHARE = 0.05
QUICK_ROWS = 300
ALL = "all"


@dataclass(frozen=True, slots=True)
class Stored:
    """What is on disk with one setting, of pool and exemplars.

    n_values: mean stored values of a sample.
    n_bytes:  of all files of its shards, per sample.
    mass_cut: share of the L1 mass that was left out.
    n_cut:    share of the samples that have as many values as may be kept.
    """

    n_values: float
    n_bytes: float
    mass_cut: float
    n_cut: float


@dataclass(frozen=True, slots=True)
class Agreement:
    """One ranking with one setting beside the same ranking with all latents; means over targets.

    spearman: rank correlation of the scores of all rows.
    overlap:  share of the best 5 % that is the same.
    ndcg:     nDCG@1000 against the labels.
    change:   of nDCG, paired by target, with its 95 % interval.
    """

    spearman: float
    overlap: float
    ndcg: float
    change: Interval


@dataclass(frozen=True, slots=True)
class Setting:
    """All about one setting of `keep_top`; `agreement` by name of the ranking."""

    stored: Stored
    agreement: dict[str, Agreement]


def name_of(kept: int | None) -> str:
    """Of a setting, in tables."""
    return ALL if kept is None else f"{kept:,}"


def methods_of(folder: Path) -> dict[tuple[str, str], Method]:
    """(ranking, setting) -> method, by the reader of `saelect bench retrieval`."""
    configs: dict[str, dict[str, Any]] = {}
    for ranking, changed in RANKINGS.items():
        for kept in KEPT:
            representation = {**changed, "keep_top": kept}
            configs[f"{ranking}/{name_of(kept)}"] = {
                "preset": "best",
                "representation": representation,
            }
    file = folder / "keep-top.yaml"
    write_bytes(file, yaml.safe_dump(configs).encode())
    methods = {}
    for method in find_methods([str(file)], UnderTest()):
        ranking, _, setting = method.name.partition("/")
        methods[ranking, setting] = method
    return methods


def run(
    pool: LabelledPool, targets: list[LabelledTarget], workspace: Workspace, name: SettingName
) -> dict[str, Setting]:
    """Setting -> what it stores and how it ranks."""
    bench = BenchPool(pool, targets, name, workspace, UnderTest())
    methods = methods_of(workspace.root)
    scorers = Scorers(bench, list(methods.values()))
    agreement: dict[str, dict[str, Agreement]] = {name_of(kept): {} for kept in KEPT}
    for ranking in RANKINGS:
        full = scores_by_target(scorers, methods[ranking, ALL])
        for kept in agreement:
            cut = scores_by_target(scorers, methods[ranking, kept])
            agreement[kept][ranking] = compare(bench, full, cut)
    folders = {kept: scorers.representers[methods["best", kept].name].folder for kept in agreement}
    return {
        name_of(kept): Setting(stored_in(folders[name_of(kept)], kept), agreement[name_of(kept)])
        for kept in KEPT
    }


def scores_by_target(scorers: Scorers, method: Method) -> dict[str, NDArray[np.float64]]:
    """Target -> (n,) scores of the labelled rows."""
    score = scorers.of(method)
    return {target.name: next(iter(score(target)))[1] for target in scorers.bench.targets}


def compare(
    bench: BenchPool, full: dict[str, NDArray[np.float64]], cut: dict[str, NDArray[np.float64]]
) -> Agreement:
    """One setting's scores beside those with all latents."""
    n_top = max(1, round(TOP_SHARE * len(bench.pool)))
    spearmans, overlaps, values, references = [], [], [], []
    for target in bench.targets:
        scores, reference = cut[target.name], full[target.name]
        orders = [order_by_score(each, bench.pool.id_order) for each in (scores, reference)]
        grades = bench.pool.grades(target)
        spearmans.append(spearman(scores, reference))
        overlaps.append(len(np.intersect1d(orders[0][:n_top], orders[1][:n_top])) / n_top)
        values.append(measure(grades[orders[0]]).ndcg)
        references.append(measure(grades[orders[1]]).ndcg)
    return Agreement(
        float(np.mean(spearmans)),
        float(np.mean(overlaps)),
        float(np.mean(values)),
        bootstrap_mean(np.array(values) - np.array(references)),
    )


def spearman(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Rank correlation; equal values share the mean of their ranks."""
    first, second = (pl.Series(values).rank("average").to_numpy() for values in (a, b))
    return float(np.corrcoef(first, second)[0, 1])


def stored_in(folder: Path, kept: int | None) -> Stored:
    """What the shards of a representation say, and the size of their files."""
    shards = open_shards(folder)
    lengths = np.concatenate([np.diff(shard.rows().indptr) for shard in shards.shards])
    totals = shards.totals()
    n_bytes = sum(file.stat().st_size for shard in shards.shards for file in shard.folder.iterdir())
    return Stored(
        n_values=float(lengths.mean()),
        n_bytes=n_bytes / len(lengths),
        mass_cut=totals["mass_cut"] / totals["mass"],
        n_cut=0.0 if kept is None else float((lengths >= kept).mean()),
    )


HEADER = ("kept", "values", "bytes", "samples cut", "mass cut")
BY_RANKING = ("Spearman", "same top 5 %", "nDCG@1000", "change")


def cells(settings: dict[str, Setting], ranking: str | None) -> list[tuple[str, ...]]:
    """Rows of a table: of what is stored, or of a ranking."""
    rows = []
    for kept, setting in settings.items():
        stored = setting.stored
        row: tuple[str, ...] = (
            f"{stored.n_values:,.0f}",
            f"{stored.n_bytes:,.0f}",
            f"{stored.n_cut:.1%}",
            f"{stored.mass_cut:.2%}",
        )
        if ranking is not None:
            agreement = setting.agreement[ranking]
            change = agreement.change
            row = (
                f"{agreement.spearman:.4f}",
                f"{agreement.overlap:.1%}",
                f"{agreement.ndcg:.4f}",
                "" if kept == ALL else f"{change.mean:+.4f} [{change.lo:+.4f}, {change.hi:+.4f}]",
            )
        rows.append((kept, *row))
    return rows


def chosen_pool(arguments: argparse.Namespace) -> LabelledPool:
    """The pool, or the rows of it that are asked for."""
    pool = read_labelled_pool(arguments.pool, arguments.subpool)
    if not arguments.quick:
        return pool
    file = open_workspace(arguments.workspace).root / "quick.txt"
    write_bytes(file, "\n".join(pool.ids[:QUICK_ROWS].tolist()).encode())
    return read_labelled_pool(arguments.pool, file)


def main() -> None:
    """Read the arguments, run, print tables and the JSON line."""
    parser = labelled_parser(__doc__)
    parser.add_argument("--quick", action="store_true", help=f"the first {QUICK_ROWS} rows")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    pool = chosen_pool(arguments)
    targets = [
        target
        for target in read_labelled_targets(arguments.targets)
        if (pool.grades(target) > 0).any()
    ]
    settings = run(pool, targets, open_workspace(arguments.workspace), arguments.setting)
    print(table_text(HEADER, cells(settings, None)))
    for ranking in RANKINGS:
        table = table_text(("kept", *BY_RANKING), cells(settings, ranking))
        print(f"{ranking}\n{table}")
    print(json.dumps({kept: asdict(setting) for kept, setting in settings.items()}))


if __name__ == "__main__":
    main()
