"""What a run ranks, against what: eligible examples, exemplars with their weights, candidates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from flows.config.jobs import SelectConfig
from flows.stages.prepare.rules import search_items
from flows.stages.rank.retrieve import retrieve_candidates
from flows.stages.represent.spaces import SpaceVectors, Terms, ranking_input_of
from selection.picking.decontamination import Contaminated
from selection.picking.eligibility import Eligibility, eligible_by_rendering
from selection.records import Exemplars
from selection.similarity.ranking_input import RankingInput
from selection.similarity.retrieval import Retrieved
from storage.pools.pool import PreparedPool
from storage.pools.renderings import RenderedPool


@dataclass(frozen=True)
class RunInput:
    """What a run ranks.

    eligibility:   after every drop.
    ranking:       vectors, joined spaces with their weights, and exemplars.
    terms:         what the exemplars' lexical columns stand for.
    contamination: which examples hold an evaluation item, as far as that was searched.
    items:         (file or target, id) of every item that was searched for.
    retrieved:     what may be ranked of the eligible, where the search is not exact.
    """

    eligibility: Eligibility
    ranking: RankingInput
    terms: Terms
    contamination: Contaminated | None = None
    items: Sequence[tuple[str, str]] = ()
    retrieved: Retrieved | None = None


def run_input(
    config: SelectConfig,
    eligibility: Eligibility,
    pool: PreparedPool,
    rendered: RenderedPool,
    vectors: SpaceVectors,
    targets: Mapping[str, tuple[pa.Table, Exemplars]],
) -> RunInput:
    """First pass over the vectors: weights from all of them, and the drops that rendering left."""
    verify = config.compute.verify_shards
    ranking, terms, has_column = ranking_input_of(config, vectors, targets, verify=verify)
    tables = {name: table for name, (table, _) in targets.items()}
    contamination, items = search_items(config, pool, tables)
    left = eligible_by_rendering(
        eligibility,
        n_tokens=rendered.full_lengths(),
        response_truncated=rendered.response_truncated(),
        has_content=rendered.usable(),
        has_vector=vectors.parts[0].spread(has_column, fill=False),
        contaminated=None if contamination is None else contamination.rows,
        min_tokens=config.length.min_tokens,
        max_tokens=config.length.max_tokens,
    )
    retrieved = retrieve_candidates(config, vectors, ranking, left)
    return RunInput(left, ranking, terms, contamination, items, retrieved)
