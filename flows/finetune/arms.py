"""Arms: each is an order of the eligible rows; a budget takes its first ones."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from flows.benchmark.methods import KNOWN, Method, find_methods
from flows.benchmark.run import identity_of
from flows.benchmark.scorers import Scorers
from flows.benchmark.setting import BenchPool
from flows.config.data import UnderTest
from flows.finetune.selections import PREFIX, rows_of
from flows.orchestration.progress import stage
from selection.core.errors import InputError
from selection.core.hashing import content_id
from selection.evaluation.labelled import LabelledTarget, Rows, RowScores
from selection.finetuning.budgets import Samples, fill_budget, of_equal_length
from selection.finetuning.split import own_rows
from selection.finetuning.statistics import FIRST
from selection.finetuning.summary import ORACLE, RANDOM, ZERO
from selection.picking.controls import random_scores, seed_of
from storage.files.atomic import write_arrays
from storage.files.workspace import file_name

LENGTH_MATCHED = "length_matched"
DRAWN = (ZERO, RANDOM, LENGTH_MATCHED, ORACLE)
"""Arms that no method ranks."""

DEFAULT = (ZERO, RANDOM, LENGTH_MATCHED, "bm25", "tokens", "rds+", "dsir", "paper", FIRST, ORACLE)

VARIANTS = {
    "bm25": "mean",
    "tfidf": "centroid",
    "tokens": "idf/mean",
    "rds": "last/round_robin",
    "rds+": "last/round_robin",
    "rds_centered": "last/mean",
    "dsir": "smoothed_per_gram",
    "gate": "round_robin",
    "split_relu": "round_robin",
    "sae_cosine": "idf/round_robin",
    "less": "adam/mean",
    "loss_drop": "relative",
}
"""What a bare name stands for: the variant by which the method stands in
`docs/benchmarks/retrieval.md`, and LESS as it is published."""

_CANDIDATES = 4096  # Random rows that length-matched ones are chosen from.


def methods_of(arms: Sequence[str], given: UnderTest) -> dict[str, Method]:
    """Arm -> its method, of one variant. Raises InputError for unknown names and repeated ones."""
    scores = given.scores
    if len(set(arms)) < len(arms):
        raise InputError(
            "an arm is named twice", field="arms", value=arms, remedy="Once is enough."
        )
    ranked = [arm for arm in arms if arm not in DRAWN and not arm.startswith(PREFIX)]
    for arm in scores:
        if arm not in ranked:
            raise InputError(
                "a file of scores cannot have this name",
                field="--scores",
                value=arm,
                remedy="Choose another.",
            )
    for arm in ranked:
        if arm not in scores and arm.partition(":")[0] not in KNOWN:
            known = dict.fromkeys((*DRAWN, *KNOWN))
            raise InputError(
                "no such arm",
                field="arms",
                value=arm,
                remedy=f"Known: {', '.join(known)}, name:variant, selection:NAME.",
            )
    names = {
        arm: f"{arm}:{VARIANTS[arm]}" if arm in VARIANTS and arm not in scores else arm
        for arm in ranked
    }
    if not ranked:
        return {}
    named = [name for arm, name in names.items() if arm not in scores]
    by_name = {method.name: method for method in find_methods(named, given, "arms")}
    return {arm: by_name[name] for arm, name in names.items()}


@dataclass(frozen=True)
class Arms:
    """Orders of the eligible rows. Scores of a method and target are a file each.

    bench:   the eligible rows alone, as a labelled pool.
    samples: rows as the trainee reads them.
    selections: arm -> id and own ids of the picks of a selection of the catalog.
    """

    bench: BenchPool
    methods: dict[str, Method]
    samples: Samples
    selections: dict[str, tuple[str, list[str]]] = field(default_factory=dict)

    def score(self, targets: Sequence[LabelledTarget]) -> None:
        """Compute the scores that are missing; passes over the pool are shared."""
        missing = {
            arm: [target for target in targets if not self._file(arm, target).exists()]
            for arm in self.methods
        }
        wanted = [arm for arm, those in missing.items() if those]
        scorers = Scorers(self.bench, [self.methods[arm] for arm in wanted])
        scorers.refuse()
        for arm in wanted:
            scorer = scorers.of(self.methods[arm])
            with stage(f"scores {arm}", len(missing[arm]), "targets") as handle:
                for target in missing[arm]:
                    ((_, scores),) = scorer(target)
                    write_arrays(self._file(arm, target), scores)
                    handle.advance(1)

    def refuse_short_selections(self, budget: int) -> None:
        """Raise InputError for a selection with fewer tokens of eligible rows than a budget."""
        for arm, (_, own_ids) in self.selections.items():
            rows = rows_of(own_ids, self.bench.pool.ids.tolist(), arm)
            n_tokens = sum(len(sample.tokens) for sample in self.samples(rows))
            if n_tokens < budget:
                raise InputError(
                    f"its rows have {n_tokens:,} tokens, fewer than the budget of {budget:,}",
                    field="arms",
                    value=arm,
                    remedy="Give a smaller --budget-tokens, or leave this arm out.",
                )

    def order(self, arm: str, target: LabelledTarget, budget: int, seed: int) -> Rows:
        """Rows from first to last. Seeds draw other random rows; elsewhere they decide ties."""
        if arm == ORACLE:
            own = np.flatnonzero(own_rows(self.bench.pool, target))
            return own[np.argsort(self._chance(target.name, seed)[own])]
        if arm == RANDOM:
            return np.argsort(self._chance(target.name, seed))
        if arm == LENGTH_MATCHED:
            like = FIRST if FIRST in self.methods else ORACLE
            picked = fill_budget(self.order(like, target, budget, seed), self.samples, budget)[1]
            drawn = np.argsort(self._chance(LENGTH_MATCHED, seed))
            n = max(_CANDIDATES, 8 * len(picked))
            matched = of_equal_length(picked, drawn[:n], self.samples)
            return np.concatenate([matched, drawn[~np.isin(drawn, matched)]])
        if arm in self.selections:
            return rows_of(self.selections[arm][1], self.bench.pool.ids.tolist(), arm)
        scores = np.load(self._file(arm, target))
        return np.lexsort((self._chance(target.name, seed), -scores))

    def identity(self, arm: str) -> object:
        """Everything that decides an arm's order besides pool, target and seed."""
        if arm == LENGTH_MATCHED:
            return [arm, self.identity(FIRST if FIRST in self.methods else ORACLE)]
        if arm in self.selections:
            return self.selections[arm]
        return self._identities[arm] if arm in self.methods else arm

    @cached_property
    def _identities(self) -> dict[str, object]:
        return {arm: identity_of(method, self.bench) for arm, method in self.methods.items()}

    def _chance(self, purpose: str, seed: int) -> RowScores:
        return random_scores(self.bench.pool.ids.tolist(), seed_of(seed, purpose, "finetune"))

    def _file(self, arm: str, target: LabelledTarget) -> Path:
        bench = self.bench
        key = content_id(
            [bench.pool.sha256, target.target_id, bench.setting, self.identity(arm)], n_hex=24
        )
        folder = bench.workspace.root / "bench" / "finetune" / "scores"
        return folder / f"{file_name(arm)}-{file_name(target.name)}-{key}.npy"
