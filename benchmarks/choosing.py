r"""Can held-out exemplars choose the ranking of a target? What a chooser gains and what it misses.

    python -m benchmarks.choosing --pool POOL --targets TARGETS --workspace DIR --setting full

Every setting of a small grid (spaces and their weights, idf, length, reduction; BM25) ranks the
rows for every target, judged by labels; and without labels the exemplars outside each fold say
where the held-out ones stand. Prints what choosing by that gives. The last line is one JSON object:
setting -> target -> nDCG@1000.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import yaml
from numpy.typing import NDArray

from benchmarks.support.labelled_arguments import labelled_parser
from flows.benchmark.methods import find_methods
from flows.benchmark.scorers import Scorers
from flows.benchmark.setting import BenchPool
from flows.config.data import UnderTest
from flows.stages.prepare.render import render
from flows.stages.represent.exemplars import embed_targets
from flows.stages.represent.spaces import count_terms, open_spaces, ranking_input_of
from flows.stages.represent.units import embed_rendered
from selection.core.sparse import take
from selection.evaluation.bm25 import bm25_of_sets
from selection.evaluation.held_out import folds_of, share_above
from selection.evaluation.label_free import different
from selection.evaluation.labelled import (
    LabelledTarget,
    read_labelled_pool,
    read_labelled_targets,
)
from selection.evaluation.metrics import (
    N_SPLITS,
    Interval,
    bootstrap_mean,
    measure,
    nested_mean,
    order_by_score,
)
from selection.records import SparseRows
from selection.similarity.queries import exemplar_queries, score, score_each
from selection.similarity.ranking_input import RankingInput
from storage.files.atomic import write_bytes
from storage.files.workspace import open_workspace

SPACES: Mapping[str, Mapping[str, object]] = {
    "best": {},
    "no idf": {"ranking": {"weights": "none"}},
    "one length": {"ranking": {"normalize": "l1"}},
    "tokens x2": {"representation": {"spaces": ["sae", {"kind": "tokens", "weight": 2}]}},
    "SAE x2": {"representation": {"spaces": [{"kind": "sae", "weight": 2}, "tokens"]}},
    "words for tokens": {"representation": {"spaces": ["sae", "words"]}},
    "words too": {"representation": {"spaces": ["sae", "words", "tokens"]}},
    "SAE alone": {"representation": {"spaces": ["sae"]}},
    "tokens x8": {"representation": {"spaces": ["sae", {"kind": "tokens", "weight": 8}]}},
}
Reduction = Literal["mean", "max", "prototype"]
REDUCTIONS: tuple[Reduction, ...] = get_args(Reduction)
N_FOLDS = 5
SURELY = (0.0, 1.0, 2.0)
EQUAL = 1e-9

Shares = NDArray[np.float64]


@dataclass(frozen=True)
class Measured:
    """Every setting on every target; the first setting is the default.

    ndcg:   (s, t) of the ranking by all exemplars, from labels.
    shares: [s][t] (u,) of the samples above each held-out exemplar; exemplars in one order.
    n_rows: how many samples there are.
    """

    settings: list[str]
    targets: list[str]
    ndcg: NDArray[np.float64]
    shares: list[list[Shares]]
    n_rows: int

    def only(self, wanted: Callable[[str], bool]) -> "Measured":
        """The default and the wanted settings."""
        keep = [i for i, name in enumerate(self.settings) if i == 0 or wanted(name)]
        names, shares = [self.settings[i] for i in keep], [self.shares[i] for i in keep]
        return Measured(names, self.targets, self.ndcg[keep], shares, self.n_rows)


GRIDS: Mapping[str, Callable[[str], bool]] = {
    "idf or not": lambda name: name == "no idf, mean",
    "reduction": lambda name: name.startswith("best, "),
    "length": lambda name: name == "one length, mean",
    "spaces, idf, length": lambda name: name.endswith(", mean"),
    "`best` or BM25": lambda name: name == "BM25",
    "all": lambda name: True,
}


def lead(default: Shares, other: Shares, n_rows: int) -> tuple[float, float]:
    """How far held-out exemplars stand higher by another setting, and its standard error.

    Of the natural logarithm of the share of samples above: the mean over exemplars of the
    difference, paired. Half a sample is added, so that none above is a number.
    """
    gains = np.log(default + 0.5 / n_rows) - np.log(other + 0.5 / n_rows)
    error = gains.std(ddof=1) / np.sqrt(len(gains)) if len(gains) > 1 else np.inf
    return float(gains.mean()), float(error)


def choose(shares: Sequence[Shares], n_rows: int, surely: float) -> int:
    """Number of the setting that held-out exemplars stand highest by; 0 unless that is sure.

    surely: by how many standard errors another one must lead the first.
    """
    leads = [lead(shares[0], each, n_rows) for each in shares]
    return int(np.argmax([mean if mean > surely * error else 0.0 for mean, error in leads]))


def choices(measured: Measured, surely: float) -> NDArray[np.int64]:
    """(t,) the chosen setting of every target."""
    by_target = zip(*measured.shares, strict=True)
    return np.array([choose(each, measured.n_rows, surely) for each in by_target], np.int64)


def halved(gains: NDArray[np.float64], n_splits: int = N_SPLITS, seed: int = 0) -> Shares:
    """(t,) what each target gains where the other half of the targets picked the rule.

    gains: (r, t) of rules. Targets are halved at random, both ways; a target's value is the mean
    over the halvings in which it had no say.
    """
    n = gains.shape[1]
    rng = np.random.default_rng(seed)
    total = np.zeros(n)
    times = np.zeros(n)
    for _ in range(n_splits):
        halves = np.split(rng.permutation(n), [n // 2])
        for judges, rest in (halves, halves[::-1]):
            total[rest] += gains[gains[:, judges].sum(axis=1).argmax(), rest]
            times[rest] += 1
    return total / times


def report(measured: Measured) -> list[str]:
    """Markdown: what choosing gives in every grid by every rule, and over all of them."""
    lines = [
        "| grid | settings | oracle | one for all, nested | sure by | chosen | gain | regret"
        " | switched | better | worse |",
        "|---|---:|---:|---:|---:|---:|---|---|---:|---:|---:|",
    ]
    every = [np.zeros(len(measured.targets))]
    for grid, wanted in GRIDS.items():
        part = measured.only(wanted)
        oracle = part.ndcg.max(axis=0)
        facts = f"{len(part.settings)} | {oracle.mean():.3f} | {nested_mean(part.ndcg):.3f}"
        for surely in SURELY:
            chosen = choices(part, surely)
            own = part.ndcg[chosen, np.arange(len(chosen))]
            gain = own - part.ndcg[0]
            every.append(gain)
            counts = [int((each).sum()) for each in (chosen > 0, gain > EQUAL, gain < -EQUAL)]
            lines.append(
                f"| {grid} | {facts} | {surely:g} | {own.mean():.3f}"
                f" | {_signed(bootstrap_mean(gain))} | {_plain(bootstrap_mean(oracle - own))}"
                f" | {' | '.join(map(str, counts))} |"
            )
    alone = halved(np.array(every))
    lines.append(
        f"\nRule picked by the other half of the targets: {_signed(bootstrap_mean(alone))}"
    )
    return lines


def _signed(value: Interval) -> str:
    return f"{value.mean:+.3f} [{value.lo:+.3f}, {value.hi:+.3f}]"


def _plain(value: Interval) -> str:
    return f"{value.mean:.3f} [{value.lo:.3f}, {value.hi:.3f}]"


def cell_of(
    ranking: RankingInput, rows: SparseRows, target: str, reduction: Reduction, threads: int
) -> tuple[Shares, Shares]:
    """(n,) scores by all exemplars, and (u,) shares of samples above each held-out one."""
    exemplars = ranking.exemplars[target]
    folds = folds_of(exemplars.ids.tolist(), N_FOLDS)
    sets = [np.flatnonzero(folds != fold) for fold in range(folds.max() + 1)]
    sets.append(np.arange(len(folds)))  # The last column is the ranking itself.
    if reduction == "prototype":
        weights = ranking.spaces.weights
        prototypes = [
            exemplar_queries(take(exemplars.rows, kept), weights, reduction) for kept in sets
        ]
        samples, own = (
            np.column_stack([score(some, each, threads=threads) for each in prototypes])
            for some in (rows, exemplars.rows)
        )
    else:
        queries = ranking.queries(target, reduction)
        reduced = np.mean if reduction == "mean" else np.max
        samples, own = (
            np.column_stack([reduced(each[:, kept], axis=1) for kept in sets])
            for each in (
                score_each(some, queries, threads=threads)[0] for some in (rows, exemplars.rows)
            )
        )
    return samples[:, -1], standings(samples, own, folds, exemplars.ids)


def standings(
    samples: NDArray[np.float64],
    own: NDArray[np.float64],
    folds: NDArray[np.int64],
    ids: NDArray[np.str_],
) -> Shares:
    """(u,) shares of the samples above each different exemplar, by the others' scores.

    samples: (n, folds). own: (m, folds). Targets keep their exemplars out of the pool: no copies.
    """
    none = np.zeros(len(samples), np.bool_)
    return np.array(
        [share_above(samples[:, folds[i]], own[i, folds[i]], none) for i in different(ids)]
    )


def measure_settings(bench: BenchPool, threads: int) -> Measured:
    """All settings on all targets; vectors that the workspace lacks are made first."""
    file = bench.workspace.root / "bench" / "choosing.yaml"
    configs = {name: {"preset": "best", **keys} for name, keys in SPACES.items()}
    write_bytes(file, yaml.safe_dump(configs, sort_keys=False).encode())
    methods = find_methods([str(file)], bench.given)
    scorers = Scorers(bench, methods)
    cells: dict[str, list[tuple[Shares, Shares]]] = {}
    for method in methods:
        assert method.config is not None
        config, reading = bench.configured(method.config), scorers.representers[method.name]
        render(bench.workspace, bench.prepared, reading.model_input)
        rendered = reading.rendered(bench.prepared.pool_id)
        embed_rendered([reading], rendered)
        count_terms(config, reading, rendered)
        targets = embed_targets(reading, config, bench.exemplars)
        vectors = open_spaces(config, reading, bench.prepared.pool_id)
        ranking, _, _ = ranking_input_of(config, vectors, targets)
        rows = ranking.joined(np.arange(bench.prepared.n_examples))
        for reduction in REDUCTIONS:
            cells[f"{method.name}, {reduction}"] = [
                cell_of(ranking, rows, target.name, reduction, threads) for target in bench.targets
            ]
    ids = {name: exemplars.ids for name, (_, exemplars) in targets.items()}
    names = [target.name for target in bench.targets]
    ndcg = [
        [_ndcg(bench, target, bench.spread(scores)) for target, (scores, _) in own]
        for own in (zip(bench.targets, each, strict=True) for each in cells.values())
    ]
    shares = [[standing for _, standing in each] for each in cells.values()]
    by_words = [cell_by_words(bench, target, ids[target.name]) for target in bench.targets]
    ndcg.append([_ndcg(bench, t, s) for t, (s, _) in zip(bench.targets, by_words, strict=True)])
    shares.append([standing for _, standing in by_words])
    return Measured([*cells, "BM25"], names, np.array(ndcg), shares, bench.prepared.n_examples)


def cell_by_words(
    bench: BenchPool, target: LabelledTarget, ids: NDArray[np.str_]
) -> tuple[Shares, Shares]:
    """The same of BM25."""
    folds = folds_of(ids.tolist(), N_FOLDS)
    sets = [np.flatnonzero(folds != n) for n in range(folds.max() + 1)]
    samples, own = bm25_of_sets(
        bench.texts.texts(), bench.texts.of_exemplars(target), [*sets, np.arange(len(ids))]
    )
    return samples[:, -1], standings(samples, own, folds, ids)


def _ndcg(bench: BenchPool, target: LabelledTarget, scores: Shares) -> float:
    order = order_by_score(scores, bench.pool.id_order)
    return measure(bench.pool.grades(target)[order]).ndcg


def main() -> None:
    """Measure, and print the table and JSON."""
    arguments = labelled_parser(__doc__).parse_args()
    bench = BenchPool(
        read_labelled_pool(arguments.pool, arguments.subpool),
        read_labelled_targets(arguments.targets),
        arguments.setting,
        open_workspace(arguments.workspace),
        UnderTest(),
    )
    measured = measure_settings(bench, arguments.threads)
    print("\n".join(report(measured)))
    values = {
        name: dict(zip(measured.targets, row.round(4).tolist(), strict=True))
        for name, row in zip(measured.settings, measured.ndcg, strict=True)
    }
    print(json.dumps(values))


if __name__ == "__main__":
    main()
