"""Samples ranked against exemplars: who may be picked, weights of latents, the exact scores."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from selection.core.errors import InputError
from selection.data.messages.contents import has_response
from selection.data.samples import Samples
from selection.interactive.plots import as_figure, ranking_chart
from selection.interactive.vectors import Vectors
from selection.picking.decontamination import find_contaminated
from selection.picking.eligibility import (
    Eligibility,
    eligible_by_content,
    eligible_by_rendering,
)
from selection.picking.item_runs import as_item, item_runs
from selection.picking.selections import rankings_of, refuse_zeros
from selection.records import Ranking
from selection.similarity.queries import ExemplarReduction
from selection.similarity.ranking_input import RankingInput, ranking_input
from selection.similarity.sources import MemoryVectors, PoolSpaces
from selection.similarity.spaces import Normalize, SpaceRule, join_for_targets
from selection.similarity.weights import Weighting, document_frequencies


@dataclass(frozen=True, slots=True)
class RankingRules:
    """How samples are ranked; names and defaults are those of the config with preset `best`.

    exemplar_reduction: how the similarities to several exemplars become one score.
    weights:            of latents: none, inverse document frequency, or target_unique.
    space_weights:      of each space as a whole; None counts all alike.
    max_document_frequency: latents in a larger share of the samples get weight 0.
    normalize:          none, l1 or pool; see `join_spaces`.
    where:              SQL expression over columns; samples failing it are dropped.
    exclude:            example ids or own ids that are never picked.
    drop_exemplar_copies: drop samples that are exact copies of an exemplar.
    min_tokens, max_tokens: of a sample as rendered, before anything is cut.
    decontaminate:      drop samples that hold an exemplar; evaluation_items are searched too.
    """

    exemplar_reduction: ExemplarReduction = "mean"
    weights: Weighting = "idf"
    space_weights: Sequence[int] | None = None
    max_document_frequency: float | None = None
    normalize: Normalize = "pool"
    where: str | None = None
    exclude: Sequence[str] = ()
    drop_exemplar_copies: bool = True
    min_tokens: int | None = None
    max_tokens: int | None = None
    decontaminate: bool = True
    evaluation_items: Samples | None = None
    threads: int = 1


@dataclass(frozen=True, eq=False)
class Ranked:
    """Samples in order of their similarity to the exemplars of one target task.

    vectors:     of the samples. exemplars: those of the target.
    promised:    samples that pass every drop before rendering; a fraction is of these.
    eligibility: samples that are ranked, and the others by reason.
    unsearched:  ids of exemplars and evaluation items that decontamination cannot search for, since
                 they have too few words of their own, or are too frequent among the samples.
    """

    target: str
    vectors: Vectors
    exemplars: Vectors
    rules: RankingRules
    promised: int
    eligibility: Eligibility
    input: RankingInput
    ranking: Ranking
    scores: NDArray[np.float64]
    unsearched: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """How many are ranked, against what."""
        return (
            f"Ranked({self.target!r}: {len(self.ranking.rows):,} of {len(self.vectors):,} samples"
            f" against {len(self.exemplars)} exemplars)"
        )

    @cached_property
    def table(self) -> pl.DataFrame:
        """rank, example_id and score of every ranked sample, best first."""
        return pl.DataFrame(
            {
                "rank": np.arange(1, len(self.ranking.rows) + 1),
                "example_id": self.vectors.samples.ids[self.ranking.rows],
                "score": self.ranking.scores,
            }
        )

    def plot(self) -> Any:
        """A plotly figure: the scores over the ranks. Raises InputError without plotly."""
        return as_figure(ranking_chart(self))


def rank_samples(target: str, vectors: Vectors, exemplars: Vectors, rules: RankingRules) -> Ranked:
    """Exact generalized Jaccard of every eligible sample; the same scores as `saelect run`."""
    _refuse_silent(target, exemplars)
    promised = _eligible_before_rendering(vectors, exemplars.samples, rules)
    spaces = PoolSpaces(vectors.names, tuple(MemoryVectors(rows) for rows in vectors.rows))
    counts, has_column = document_frequencies(spaces)
    weights = rules.space_weights or [1] * len(vectors.names)
    joined, join = join_for_targets(
        [
            SpaceRule(name, rules.weights, weight)
            for name, weight in zip(vectors.names, weights, strict=True)
        ],
        counts,
        normalize=rules.normalize,
        max_document_frequency=rules.max_document_frequency,
    )
    given = ranking_input(
        spaces,
        joined,
        counts,
        {target: exemplars.samples.ids},
        {target: exemplars.rows},
        vectors.spaces.index("sae"),
        join,
    )
    contaminated, unsearched = _search_items(vectors.samples, exemplars.samples, rules)
    left = _eligible_after_rendering(promised, vectors, contaminated, rules, has_column)
    scorer = given.scorer(rules.exemplar_reduction, rules.threads)
    scores = scorer.scores(spaces)
    rankings = rankings_of(scores, left.eligible)
    refuse_zeros(rankings)
    return Ranked(
        target,
        vectors,
        exemplars,
        rules,
        promised.n,
        left,
        given,
        rankings[target],
        scores[target],
        unsearched,
    )


def _refuse_silent(target: str, exemplars: Vectors) -> None:
    """An exemplar without content tokens would silently pull every score down."""
    for number, sample in enumerate(exemplars.rendered):
        if not sample.content_mask.any():
            raise InputError(
                f"exemplar {number + 1} of `{target}` has no content tokens (counted:"
                f" {exemplars.reader.settings.counted})",
                field="exemplars",
                remedy="Give it a response, or load the model with `counted='prompt'`.",
            )


def _eligible_before_rendering(
    vectors: Vectors, exemplars: Samples, rules: RankingRules
) -> Eligibility:
    samples = vectors.samples
    answers = (has_response(messages) for messages, _ in samples.conversations())
    return eligible_by_content(
        samples.passing(rules.where),
        samples.ids,
        exemplars.ids.tolist() if rules.drop_exemplar_copies else (),
        samples.numbers_of(rules.exclude)[0],
        None if vectors.reader.settings.counted == "prompt" else answers,
    )


def _eligible_after_rendering(
    eligibility: Eligibility,
    vectors: Vectors,
    contaminated: NDArray[np.int64] | None,
    rules: RankingRules,
    has_vector: NDArray[np.bool_],
) -> Eligibility:
    has_content = np.array([bool(each.content_mask.any()) for each in vectors.rendered])
    lost = np.array([each.response_lost for each in vectors.rendered])
    return eligible_by_rendering(
        eligibility,
        n_tokens=np.array([each.n_full for each in vectors.rendered], np.int64),
        response_truncated=lost & ~has_content,
        has_content=has_content,
        has_vector=has_vector,
        contaminated=contaminated,
        min_tokens=rules.min_tokens,
        max_tokens=rules.max_tokens,
    )


def _search_items(
    samples: Samples, exemplars: Samples, rules: RankingRules
) -> tuple[NDArray[np.int64] | None, tuple[str, ...]]:
    """Samples that hold an exemplar or evaluation item; ids of those that cannot be searched."""
    if not rules.decontaminate:
        return None, ()
    files = [exemplars, *([rules.evaluation_items] if rules.evaluation_items else [])]
    items = item_runs(
        [as_item(messages) for file in files for messages, _ in file.conversations()],
        [number for number, file in enumerate(files) for _ in range(len(file))],
    )
    ids = np.concatenate([file.ids for file in files])
    contaminated = find_contaminated(samples.texts(), items, len(samples))
    left_out = np.concatenate([items.unsearched, contaminated.too_frequent])
    return contaminated.rows, tuple(str(name) for name in ids[left_out])
