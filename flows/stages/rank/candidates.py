"""Candidates by FAISS (`ranking.search: faiss`): only what sketches bring up is scored, exactly.

The scores are those of the exact search; what is approximate is who has one. That is measured: in
a sample of shards everything is scored, and of what scores at least as much as the last pick the
share is kept that had been found.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from flows.config.jobs import SelectConfig
from flows.orchestration.progress import stage
from flows.stages.rank.index import identity_of, index_folder, index_pool_vectors, open_index
from flows.stages.rank.score import joint_scores
from flows.stages.represent.spaces import JointTarget, SpaceVectors, own_number
from selection.core.errors import InputError
from selection.core.sparse import concatenate
from selection.picking.budget import wanted_examples
from selection.records import SparseRows
from selection.similarity.sketches import gpu_is_there, search, sketch
from storage.files.atomic import is_complete


@dataclass(frozen=True)
class Candidates:
    """What the sketches brought up, for all targets together.

    vectors: (n_vectors,) bool. rows: (n,) bool, pool rows that have one of these vectors.
    facts:   for the run's record.
    """

    vectors: NDArray[np.bool_]
    rows: NDArray[np.bool_]
    facts: dict[str, object] = field(default_factory=dict)


def find_candidates(
    config: SelectConfig,
    pool_id: str,
    vectors: SpaceVectors,
    targets: Mapping[str, JointTarget],
    eligible: NDArray[np.bool_],
) -> Candidates | None:
    """The nearest vectors of every exemplar, and of each target's sum; None for the exact search.

    Sketches are of the run's own space; queries weigh its latents as the ranking does.
    An index that is not there is built, unless only what is recorded may be used. Raises InputError
    then, and where fewer candidates than the budget come up.
    """
    if config.ranking.search == "exact":
        return None
    number = own_number(vectors)
    source, own = vectors.sources[number], vectors.parts[number]
    settings, representer = config.faiss, source.representer
    identity, indexes = identity_of(representer, pool_id), representer.workspace.indexes
    folder, _ = index_folder(indexes, own, identity, settings)
    if representer.computes:
        index_pool_vectors(representer.workspace, representer, pool_id)
    elif not is_complete(folder):
        raise InputError(
            "the vectors have no index",
            field="ranking.search",
            value="faiss",
            remedy="`saelect run` with the same config builds it again; vectors are reused.",
        )
    found = np.zeros(own.n_vectors, np.bool_)
    k = min(config.ranking.candidates, own.n_vectors)
    with stage("search", len(targets), "targets") as handle:
        index = open_index(folder)
        for target in targets.values():
            exemplars = target.parts[number]
            queries = concatenate([exemplars, _sum_of(exemplars)])
            weights = target.joint.spaces[number].weights
            near = search(
                index,
                sketch(queries, settings.n_dims, settings.seed, weights),
                k,
                n_probes=settings.n_probes,
                threads=config.compute.n_threads,
                gpu=settings.gpu == "auto" and gpu_is_there(),
            )
            found[near.rows[near.rows >= 0]] = True
            handle.advance(1)
        rows = own.spread(found, fill=False)
        n_found = int((rows & eligible).sum())
        handle.detail = f"{n_found:,} of {int(eligible.sum()):,} examples are candidates"
    wanted = wanted_examples(config.budget.as_budget(), int(eligible.sum()))
    if wanted is not None and n_found < wanted:
        raise InputError(
            f"{n_found:,} candidates were found, and the budget asks for {wanted:,} examples",
            field="ranking.candidates",
            value=config.ranking.candidates,
            remedy="Raise it to several times the budget over the exemplars, or search exactly.",
        )
    return Candidates(found, rows, {"candidates": n_found})


def _sum_of(rows: SparseRows) -> SparseRows:
    """One row: the sum of all, scaled down where it does not fit."""
    sums = np.bincount(rows.latents, rows.values.astype(np.float64), rows.n_latents)
    sums = np.ceil(sums * min(1.0, np.iinfo(np.uint16).max / max(sums.max(initial=0), 1)))
    latents = np.flatnonzero(sums)
    return SparseRows(
        np.array([0, len(latents)], np.int64),
        latents.astype(np.int32),
        sums[latents].astype(rows.values.dtype),
        rows.n_latents,
    )


def measured_recall(
    config: SelectConfig,
    vectors: SpaceVectors,
    targets: Mapping[str, JointTarget],
    eligible: NDArray[np.bool_],
    candidates: Candidates,
    cuts: Mapping[str, float],
) -> dict[str, object]:
    """Target -> share of the examples that score at least its cut that were candidates.

    cuts: target -> score of its last pick. Scored is every s-th shard, all of them where the pool
    has at most `ranking.recall_vectors` vectors.
    """
    own = vectors.parts[own_number(vectors)]
    every = max(1, own.n_vectors // config.ranking.recall_vectors)
    sampled = np.zeros(own.n_vectors, np.bool_)
    for numbers, _ in own.blocks(share=(0, every)):
        sampled[numbers] = True
    counted = own.spread(sampled, fill=False) & eligible
    found = joint_scores(config, vectors, targets, only=sampled)
    recall: dict[str, object] = {"sampled": int(counted.sum())}
    for name, cut in cuts.items():
        scores = found[name] if found[name].ndim == 1 else found[name].max(axis=1)
        good = counted & (scores >= cut)
        n_good = int(good.sum())
        share = float((good & candidates.rows).sum() / n_good) if n_good else None
        recall[name] = {"recall": share, "of": n_good}
    return recall
