"""Scores of methods that read a model: the ranking itself, and rivals on the same forward pass."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from flows.benchmark.forward_pass import UNIT, Reading
from flows.benchmark.lexical import Scorer, Scores, lexical_scorer
from flows.benchmark.methods import MAX_LENGTH, NEEDS_PASS, Method
from flows.benchmark.setting import BenchField
from flows.config.jobs import SelectConfig
from flows.config.model import ModelConfig
from flows.stages.prepare.render import ModelInput, open_model_input, render, render_rows, sae_path
from flows.stages.rank.score import joint_scores
from flows.stages.represent.representer import (
    Representer,
    embed_targets,
    open_representer,
    pool_vectors,
)
from flows.stages.represent.spaces import (
    count_documents,
    count_terms,
    join_targets,
    open_spaces,
    representers_of,
)
from flows.stages.represent.units import embed_rendered
from selection.core.sparse import document_frequency, indptr_of
from selection.evaluation.cosine_baselines import (
    Reduced,
    cosine_scores,
    reduce_scores,
    sparse_cosine_scores,
)
from selection.evaluation.dense_baselines import sparse_of
from selection.evaluation.labelled import Target
from selection.evaluation.lexical_baselines import bag_of_tokens
from selection.picking.ranking import take_turns
from selection.records import SparseRows
from selection.representation.aggregate import calibrate_unit, quantize
from selection.similarity.queries import exemplar_queries, score_each
from selection.similarity.weights import idf_weights, unit_weights
from storage.pools.vectors import PoolVectors


@dataclass(frozen=True)
class Scorers:
    """Makes the scorer of each method of one setting; passes over the pool are shared.

    methods: all that will be asked for, so that one pass can read for all of them.
    """

    field: BenchField
    methods: Sequence[Method]

    def of(self, method: Method) -> Scorer:
        """The scorer of a method."""
        if method.kind == "ranking":
            return _ranking_scorer(method, self)
        if method.kind == "sae_cosine":
            return _cosine_scorer(method, self)
        if method.kind in NEEDS_PASS:
            return _dense_scorer(method, self.reading_of(method), self.field)
        if method.kind == "tokens":
            return _token_scorer(method, self)
        return lexical_scorer(method, self.field)

    @cached_property
    def representers(self) -> dict[str, Representer]:
        """Method name -> its SAE reading."""
        return {
            method.name: open_representer(
                self.field.configured(method.config), self.field.workspace, sae_path(method.config)
            )
            for method in self.methods
            if method.config is not None
        }

    @cached_property
    def base(self) -> SelectConfig:
        """The config of the model under test, for rivals that need no SAE."""
        given = self.field.given
        return SelectConfig.model_validate(
            {
                "pool": "benchmark",
                "exemplars": "benchmark",
                "budget": {"examples": 1},
                "model": {"name": given.model, "hookpoint": given.hookpoint},
                "sae": {"path": given.sae},
                "rendering": {"max_length": MAX_LENGTH},
            }
        )

    def config_of(self, method: Method) -> SelectConfig:
        """The config of the model that a rival reads: the one under test, or the encoder."""
        if method.kind != "encoder":
            return self.base
        model = ModelConfig(name=str(method.path), hookpoint="resid@1.0")
        return self.base.model_copy(update={"model": model})

    @cached_property
    def reading(self) -> Reading:
        """The one pass over the model under test."""
        model_input = open_model_input(self.base)
        blocks: dict[str, int] = {}
        wanted = {method.kind for method in self.methods}
        if wanted & {"dense", "gate", "split_relu"}:
            blocks = {"sae": model_input.hookpoint.block, "last": model_input.model.n_layers - 1}
        mine = {
            each.representation_id: each
            for own in self.representers.values()
            for each in representers_of(own.config, own)
            if each.model_input.model.weights_sha256 == model_input.model.weights_sha256
            and tokens_of(each.model_input) == tokens_of(model_input)
        }
        gate = next((int(m.settings["k"]) for m in self.methods if m.kind == "gate"), None)
        reading = Reading(self.field, self.base, blocks, gate, tuple(mine.values()))
        reading.run()
        return reading

    def reading_of(self, method: Method) -> Reading:
        """The pass that a dense method reads: of the model under test, or the encoder's own."""
        if method.kind != "encoder":
            return self.reading
        config = self.config_of(method)
        last = open_model_input(config).model.n_layers - 1
        reading = Reading(self.field, config, {"last": last}, None)
        reading.run()
        return reading


def tokens_of(model_input: ModelInput) -> dict[str, object]:
    """What decides the tokens of a rendering, whichever of them count."""
    settings = model_input.renderer.settings
    return {name: value for name, value in settings.items() if name != "counted"}


def _ranking_scorer(method: Method, scorers: Scorers) -> Scorer:
    """The ordinary stages' own scores; all targets in one pass over the vectors."""
    field, representer = scorers.field, scorers.representers[method.name]
    assert method.config is not None
    config = field.configured(method.config)
    scorers.reading  # noqa: B018 - computes what the shards lack, in the shared pass
    render(field.workspace, field.prepared, representer.model_input)
    rendered = representer.rendered(field.prepared.pool_id)
    embed_rendered(representers_of(config, representer), rendered)
    count_terms(config, representer, rendered)
    targets = embed_targets(representer, config, field.exemplars)
    spaces = open_spaces(config, representer, field.prepared.pool_id)
    counts, _ = count_documents(config, spaces)
    found = joint_scores(config, spaces, join_targets(config, spaces, counts, targets))
    everyone = np.ones(field.prepared.n_examples, np.bool_)

    def score(target: Target) -> Scores:
        scores = found[target.name]
        if config.ranking.exemplar_reduction == "round_robin":
            # Taking turns gives an order, not comparable scores: the place stands for one.
            order = take_turns(scores, everyone).rows
            scores = np.empty(len(everyone))
            scores[order] = -np.arange(len(order), dtype=np.float64)
        yield "-", field.spread(scores)

    return score


def _dense_scorer(method: Method, reading: Reading, field: BenchField) -> Scorer:
    if method.kind in ("gate", "split_relu"):
        return _quantized_scorer(method, reading, field)
    exemplars = reading.exemplars()
    by_place: dict[str, list[Reduced]] = {}
    for variant in method.variants:
        place, _, how = variant.rpartition("/")
        by_place.setdefault(place or "last", []).append(how)  # type: ignore[arg-type]
    names = {place: f"{place}/{method.settings['tokens']}" for place in by_place}
    tables = {place: np.concatenate(list(reading.units(name))) for place, name in names.items()}
    middles = {
        place: table.mean(axis=0, dtype=np.float64).astype(np.float32)
        if method.settings.get("center")
        else np.zeros(table.shape[1], np.float32)
        for place, table in tables.items()
    }
    for place, middle in middles.items():
        tables[place] -= middle
    order = example_order(field)

    def score(target: Target) -> Scores:
        for place, wanted in by_place.items():
            own = exemplars[target.name][names[place]] - middles[place]
            found = cosine_scores(tables[place], own, wanted, order)
            for how, scores in found.items():
                variant = how if method.kind == "encoder" else f"{place}/{how}"
                yield variant, field.spread(scores)

    return score


def _quantized_scorer(method: Method, reading: Reading, field: BenchField) -> Scorer:
    """Non-negative dense readings in fixed point, as latents are; all exemplars give the unit."""
    exemplars = {name: each[method.kind] for name, each in reading.exemplars().items()}
    unit = calibrate_unit(sparse_of(np.concatenate(list(exemplars.values()))))
    blocks = [quantize(sparse_of(part), unit)[0] for part in reading.units(method.kind)]
    weights = unit_weights(blocks[0].n_latents)
    plain = [variant for variant in method.variants if "/" not in variant]

    def score(target: Target) -> Scores:
        queries, _ = quantize(sparse_of(exemplars[target.name]), unit)
        if plain:
            yield from jaccard_variants(plain, blocks, queries, weights, field)
        yield from cosine_variants(method, "cosine/", blocks, queries, weights, field)

    return score


def _cosine_scorer(method: Method, scorers: Scorers) -> Scorer:
    """Cosine of the SAE vectors that `best` ranks, with and without idf."""
    field, representer = scorers.field, scorers.representers[method.name]
    assert method.config is not None
    scorers.reading  # noqa: B018 - computes what the shards lack, in the shared pass
    rendered = representer.rendered(field.prepared.pool_id)
    embed_rendered([representer], rendered)
    vectors = pool_vectors(representer, field.prepared.pool_id)
    targets = embed_targets(representer, method.config, field.exemplars)
    blocks = list(_in_pool_order(vectors))
    width = blocks[0].n_latents
    frequency = np.sum([document_frequency(rows) for rows in blocks], axis=0)
    n_filled = sum(int((np.diff(rows.indptr) > 0).sum()) for rows in blocks)
    weights = {"plain": unit_weights(width), "idf": idf_weights(frequency, n_filled)}

    def score(target: Target) -> Scores:
        rows = targets[target.name][1].rows
        for kind, mine in weights.items():
            yield from cosine_variants(method, f"{kind}/", blocks, rows, mine, field)

    return score


def _in_pool_order(vectors: PoolVectors) -> Iterator[SparseRows]:
    """Vectors of all pool rows, block after block; a row without one is empty."""
    for first in range(0, len(vectors.usable), UNIT):
        usable = vectors.usable[first : first + UNIT]
        found = vectors.gather(first + np.flatnonzero(usable))
        lengths = np.zeros(len(usable), np.int64)
        lengths[usable] = np.diff(found.indptr)
        yield replace(found, indptr=indptr_of(lengths))


def _token_scorer(method: Method, scorers: Scorers) -> Scorer:
    """Bag of the model's tokens, those that the model's methods count, cut where they are cut."""
    field, model_input = scorers.field, open_model_input(scorers.base)
    rendered = render(field.workspace, field.prepared, model_input)
    n = field.prepared.n_examples
    starts = range(0, n, UNIT)
    bags = [
        bag_of_tokens(rendered.samples(np.arange(first, min(first + UNIT, n)))) for first in starts
    ]
    of_target = {
        name: bag_of_tokens(render_rows(model_input.renderer, table))
        for name, table in field.exemplars.items()
    }
    width = max(rows.n_latents for rows in (*bags, *of_target.values()))
    bags = [replace(rows, n_latents=width) for rows in bags]
    frequency = np.zeros(width, np.int64)
    for rows in bags:
        frequency += document_frequency(rows)
    n_filled = sum(int((np.diff(rows.indptr) > 0).sum()) for rows in bags)
    weights = {"plain": unit_weights(width), "idf": idf_weights(frequency, n_filled)}

    def score(target: Target) -> Scores:
        exemplars = replace(of_target[target.name], n_latents=width)
        for kind, mine in weights.items():
            wanted = [v for v in method.variants if v.startswith(f"{kind}/")]
            if wanted:
                yield from jaccard_variants(wanted, bags, exemplars, mine, field, prefix=f"{kind}/")
        yield from cosine_variants(method, "cosine/", bags, exemplars, weights["idf"], field)

    return score


def jaccard_variants(
    variants: Sequence[str],
    blocks: Sequence[SparseRows],
    exemplars: SparseRows,
    weights: NDArray[np.int64],
    field: BenchField,
    prefix: str = "",
) -> Scores:
    """Generalized Jaccard by every reduction that the variants name after the prefix."""
    each = exemplar_queries(exemplars, weights, "max")
    center = exemplar_queries(exemplars, weights, "prototype")
    matrices, centers = [], []
    for rows in blocks:
        matrices.append(score_each(rows, each)[0])
        centers.append(score_each(rows, center)[0][:, 0])
    matrix = np.concatenate(matrices)
    for variant in variants:
        how: Reduced = variant.rpartition("/")[2]  # type: ignore[assignment]
        if how == "centroid":
            yield prefix + how, field.spread(np.concatenate(centers))
        else:
            yield prefix + how, field.spread(reduce_scores(matrix, how, example_order(field)))


def cosine_variants(
    method: Method,
    prefix: str,
    blocks: Sequence[SparseRows],
    exemplars: SparseRows,
    weights: NDArray[np.int64],
    field: BenchField,
) -> Scores:
    """Cosines by every reduction that the method's variants with a prefix name."""
    wanted: list[Reduced] = [
        variant.removeprefix(prefix)  # type: ignore[misc]
        for variant in method.variants
        if variant.startswith(prefix)
    ]
    if wanted:
        order = example_order(field)
        found = sparse_cosine_scores(blocks, exemplars, weights, wanted, order)
        for how, scores in found.items():
            yield prefix + how, field.spread(scores)


def example_order(field: BenchField) -> NDArray[np.int64]:
    """Prepared examples in order of the first own id of each, so that ties go by own id."""
    rows = field.example_of_row[field.pool.id_order]
    rows = rows[rows >= 0]
    _, first = np.unique(rows, return_index=True)
    return rows[np.sort(first)]
