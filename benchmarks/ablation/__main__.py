r"""What each part of the preset `best` is worth: one factor at a time, on a labelled pool.

    python -m benchmarks.ablation --pool pool.parquet --targets targets.jsonl --subpool ids.txt \
        --workspace DIR [--page docs/benchmarks/ablation.md]

Trains the SAEs that are missing, measures the cells that are missing and writes all results to
`benchmarks/ablation/results.json` and a page after every group; a killed run goes on where it was.
The last line of the output is one JSON object: cell -> mean nDCG@1000.
"""

import argparse
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from benchmarks.ablation.cells import CELLS, Cell, Exemplars
from benchmarks.ablation.exemplars import changed_targets
from benchmarks.ablation.saes import folder_of, train_missing
from benchmarks.ablation.table import RESULTS, page
from benchmarks.support.labelled_arguments import labelled_parser
from flows.benchmark.run import Outcome, run_benchmark
from flows.config.data import BenchRequest
from selection.evaluation.metrics import N_RESAMPLES
from storage.files.atomic import write_bytes, write_json
from storage.files.workspace import open_workspace

DEMO = Path(__file__).parents[2] / "flows" / "demo"
LOGGER = logging.getLogger(__name__)


def measure(
    arguments: argparse.Namespace, change: Exemplars, cells: Sequence[Cell]
) -> tuple[Outcome, dict[str, dict[str, float]]]:
    """Cell -> target -> nDCG of cells that share their exemplars, in one pass over the pool."""
    folder = arguments.workspace / "ablation"
    configs = {cell.name: _config(arguments, cell) for cell in cells if not cell.baseline}
    methods = [cell.baseline for cell in cells if cell.baseline]
    if configs:
        file = folder / "cells.yaml"
        write_bytes(file, yaml.safe_dump(configs).encode())
        methods.append(str(file))
    outcome = run_benchmark(
        BenchRequest(
            pool=str(arguments.pool),
            targets=str(changed_targets(arguments.targets, change, folder)),
            subpool=None if arguments.subpool is None else str(arguments.subpool),
            setting=arguments.setting,
            methods=tuple(methods),
        ),
        open_workspace(arguments.workspace),
    )
    results_of = {}
    for cell in cells:
        by_target = outcome.measured[arguments.setting][cell.baseline or cell.name]
        results_of[cell.name] = {
            target: float(next(iter(variants.values()))["ndcg"])
            for target, variants in by_target.items()
        }
    return outcome, results_of


def _config(arguments: argparse.Namespace, cell: Cell) -> dict[str, Any]:
    config: dict[str, Any] = {"preset": "best", **(cell.config or {})}
    if cell.sae is not None:
        config["sae"] = str(folder_of(arguments.workspace / "ablation" / "saes", cell.sae))
    return config


def average(draws: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Target -> mean over draws."""
    return {target: float(np.mean([draw[target] for draw in draws])) for target in draws[0]}


def run(arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
    """All groups of cells; results and page are written after each."""
    trains = {cell.sae for cell in CELLS} - {None}
    if trains and not arguments.without_saes:
        train_missing(
            arguments.workspace / "ablation" / "saes",
            DEMO / "model",
            DEMO / "sae" / "layers.2",
            arguments.pool,
        )
    cells = [cell for cell in CELLS if cell.sae is None or not arguments.without_saes]
    results: dict[str, dict[str, float]] = {}
    for draws in dict.fromkeys(cell.draws for cell in cells):
        group = [cell for cell in cells if cell.draws == draws]
        measured = [measure(arguments, change, group) for change in draws]
        outcome = measured[0][0]
        for cell in group:
            results[cell.name] = average([results_of[cell.name] for _, results_of in measured])
            LOGGER.info("%s: %.4f", cell.name, np.mean(list(results[cell.name].values())))
        facts = {
            "n_targets": len(outcome.targets),
            "n_rows": len(outcome.pool),
            "setting": arguments.setting,
            "resamples": N_RESAMPLES,
        }
        kinds = [target.kind for target in outcome.targets]
        write_json(RESULTS, {"facts": facts, "kinds": kinds, "cells": results})
        if arguments.page is not None:
            write_bytes(arguments.page, page(results, kinds, facts).encode())
    return results


def main() -> None:
    """Read the arguments, run, print the JSON line."""
    parser = labelled_parser(__doc__)
    parser.add_argument("--page", type=Path, help="Markdown page to write")
    parser.add_argument("--without-saes", action="store_true", help="leave out cells of other SAEs")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(arguments.threads)
    results = run(arguments)
    print(json.dumps({name: float(np.mean(list(v.values()))) for name, v in results.items()}))


if __name__ == "__main__":
    main()
