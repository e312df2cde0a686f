r"""What few, foreign and answerless exemplars cost each method, on a labelled pool.

    python -m benchmarks.exemplars --pool POOL --targets TARGETS --workspace DIR \
        [--subpool IDS] [--setting full]

Every target's exemplars are changed (drawn three times where there is a choice), and every method
ranks the same rows by them. Where some are of other tasks, an ordinary run also says which ones its
label-free check names, and `best` ranks by the rest. Prints a table; the last line is one JSON
object: condition -> method -> mean nDCG@1000.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import yaml

from benchmarks.ablation.cells import Exemplars
from benchmarks.ablation.exemplars import changed_targets
from benchmarks.support.labelled_arguments import labelled_parser
from flows.benchmark.methods import find_methods
from flows.benchmark.run import run_benchmark
from flows.benchmark.setting import BenchPool
from flows.config.data import BenchRequest, UnderTest
from flows.config.rules import BudgetConfig
from flows.orchestration.prefect_server import start_prefect
from flows.orchestration.progress import for_terminal, listening
from flows.select_data import select_data
from selection.core.hashing import content_id
from selection.evaluation.labelled import read_labelled_pool, read_labelled_targets
from selection.evaluation.metrics import bootstrap_mean
from storage.catalog.snapshot import open_snapshot
from storage.files.atomic import write_bytes
from storage.files.workspace import open_workspace

BUDGET = 10  # What the check names does not depend on it.
DRAWS = range(3)
WHOLE, NOISY, REST = "all, as they are", "3 of other tasks", "3 of other tasks, named ones left out"
CONDITIONS: Mapping[str, tuple[Exemplars, ...]] = {
    WHOLE: (Exemplars(),),
    "5": tuple(Exemplars(n=5, seed=seed) for seed in DRAWS),
    "3": tuple(Exemplars(n=3, seed=seed) for seed in DRAWS),
    "1": tuple(Exemplars(n=1, seed=seed) for seed in DRAWS),
    NOISY: tuple(Exemplars(noise=3, seed=seed) for seed in DRAWS),
    "without answers": (Exemplars(answers=False),),
}
VARIANTS: Mapping[str, Mapping[str, object]] = {
    "best, max": {"exemplar_reduction": "max"},
    "best, prototype": {"exemplar_reduction": "prototype"},
    "best, round robin": {"exemplar_reduction": "round_robin"},
    "best, no idf": {"weights": "none"},
}
METHODS = ("best", "paper", "tokens:idf/mean", "bm25:mean")

Values = Mapping[str, Mapping[str, float]]
"""Method -> target -> nDCG."""


def measured(arguments: argparse.Namespace, targets: Path, methods: tuple[str, ...]) -> Values:
    """Methods and, beside `best`, its variants, by the exemplars of a targets file."""
    file = arguments.workspace / "exemplars" / "variants.yaml"
    configs = {name: {"preset": "best", "ranking": keys} for name, keys in VARIANTS.items()}
    write_bytes(file, yaml.safe_dump(configs).encode())
    request = BenchRequest(
        pool=str(arguments.pool),
        targets=str(targets),
        subpool=None if arguments.subpool is None else str(arguments.subpool),
        setting=arguments.setting,
        methods=(*methods, str(file)) if len(methods) > 1 else methods,
    )
    found = run_benchmark(request, open_workspace(arguments.workspace)).measured
    return {
        method: {name: next(iter(each.values()))["ndcg"] for name, each in by_target.items()}
        for method, by_target in found[arguments.setting].items()
    }


def named_exemplars(arguments: argparse.Namespace, targets: Path) -> dict[str, set[int]]:
    """Target -> positions of the exemplars that the check of an ordinary run calls apart."""
    [method] = find_methods(["best"], UnderTest())
    assert method.config is not None
    workspace = open_workspace(arguments.workspace)
    pool = read_labelled_pool(arguments.pool, arguments.subpool)
    bench = BenchPool(
        pool, read_labelled_targets(targets), arguments.setting, workspace, UnderTest()
    )
    bench.prepared, bench.exemplars  # noqa: B018 - write the files that the run reads
    name = f"exemplars-{content_id([targets.name, arguments.setting], n_hex=8)}"
    budget = BudgetConfig(examples=BUDGET)
    changed = {"budget": budget, "name": name, "controls": (), "index": False}
    select_data(
        bench.configured(method.config).model_copy(update=changed),
        str(workspace.root),
        run_name=name,
    )
    with open_snapshot(workspace) as connection:
        rows = connection.execute(
            "SELECT h.target, e.own_id FROM held_out_exemplar h"
            " JOIN selection s USING (selection_id) JOIN exemplar e ON e.run_id = s.run_id"
            " AND e.exemplar_id = h.exemplar_id AND e.target = h.target"
            " WHERE s.name LIKE ? || '%' AND h.flag = 'apart'",
            [name],
        ).fetchall()
    found: dict[str, set[int]] = {}
    for target, position in rows:
        found.setdefault(target, set()).add(int(position))
    return found


def without(targets: Path, named: Mapping[str, set[int]]) -> Path:
    """A targets file without the named exemplars; where all are named they stay."""
    lines = [json.loads(line) for line in targets.read_text(encoding="utf-8").splitlines()]
    for line in lines:
        leave_out = named.get(line["target"], set())
        kept = [each for n, each in enumerate(line["exemplars"]) if n not in leave_out]
        line["exemplars"] = kept or line["exemplars"]
    file = targets.with_name(f"{targets.stem}-rest.jsonl")
    write_bytes(file, "".join(json.dumps(line) + "\n" for line in lines).encode())
    return file


def tally(original: Path, changed: Path, named: Mapping[str, set[int]]) -> tuple[int, ...]:
    """Foreign exemplars, named ones of them, own exemplars, named ones of them."""
    counts = [0, 0, 0, 0]
    before, after = (
        [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        for file in (original, changed)
    )
    for ours, theirs in zip(before, after, strict=True):
        for n, exemplar in enumerate(theirs["exemplars"]):
            first = 2 if exemplar in ours["exemplars"] else 0
            counts[first] += 1
            counts[first + 1] += n in named.get(theirs["target"], set())
    return tuple(counts)


def run(
    arguments: argparse.Namespace,
) -> tuple[dict[str, Values], dict[str, tuple[int, ...]]]:
    """Condition -> values, means over draws; and condition -> what `tally` counts over draws."""
    folder = arguments.workspace / "exemplars"
    results: dict[str, Values] = {}
    rest, counts = [], {condition: np.zeros(4, np.int64) for condition in (WHOLE, NOISY)}
    for condition, draws in CONDITIONS.items():
        files = [changed_targets(arguments.targets, change, folder) for change in draws]
        results[condition] = average([measured(arguments, file, METHODS) for file in files])
        for file in files if condition in (WHOLE, NOISY) else ():
            named = named_exemplars(arguments, file)
            counts[condition] += np.array(tally(arguments.targets, file, named))
            if condition == NOISY:
                rest.append(measured(arguments, without(file, named), METHODS[:1]))
    results[REST] = average(rest)
    return results, {condition: tuple(each.tolist()) for condition, each in counts.items()}


def average(draws: list[Values]) -> Values:
    """Means over draws, target by target."""
    return {
        method: {t: float(np.mean([draw[method][t] for draw in draws])) for t in by_target}
        for method, by_target in draws[0].items()
    }


def table(results: Mapping[str, Values]) -> str:
    """Markdown: a row a condition; how much `best` loses by it, paired by target."""
    methods = list(results[WHOLE])
    lines = [
        f"| exemplars | {' | '.join(methods)} | `best` loses |",
        "|---|" + "---:|" * len(methods) + "---|",
    ]
    whole = np.array(list(results[WHOLE]["best"].values()))
    for condition, values in results.items():
        cells = [
            f"{np.mean(list(values[method].values())):.3f}" if method in values else ""
            for method in methods
        ]
        lost = bootstrap_mean(whole - np.array(list(values["best"].values())))
        change = f"{lost.mean:.3f} [{lost.lo:.3f}, {lost.hi:.3f}]" if condition != WHOLE else ""
        lines.append(f"| {condition} | {' | '.join(cells)} | {change} |")
    return "\n".join(lines)


def main() -> None:
    """Measure what is missing; print table, counts and JSON."""
    arguments = labelled_parser(__doc__).parse_args()
    start_prefect()()
    with listening(for_terminal()):
        results, counts = run(arguments)
    print(table(results))
    for condition, (foreign, found, own, wrong) in counts.items():
        print(f"{condition}: named are {found} of {foreign} of other tasks, {wrong} of {own} own")
    means = {
        condition: {name: round(float(np.mean(list(v.values()))), 4) for name, v in values.items()}
        for condition, values in results.items()
    }
    print(json.dumps(means))


if __name__ == "__main__":
    main()
