"""Scores of methods that read a model: the ranking, and baselines on the same forward pass."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from flows.benchmark.forward_pass import UNIT, ForwardPass
from flows.benchmark.methods import MAX_LENGTH, NEEDS_PASS, TRAINED, Method
from flows.benchmark.setting import BenchPool
from flows.benchmark.trained import (
    VERSION,
    Candidates,
    less_exemplars,
    less_tables,
    loss_drops,
    refuse_too_many,
    with_response,
)
from flows.config.jobs import SelectConfig
from flows.config.model import ModelConfig
from flows.orchestration.progress import stage
from flows.stages.prepare.render import ModelInput, open_model_input, render, render_rows, sae_path
from flows.stages.rank.score import pool_scores
from flows.stages.represent.exemplars import embed_targets
from flows.stages.represent.representer import (
    Representer,
    open_representer,
    pool_vectors,
)
from flows.stages.represent.spaces import (
    count_terms,
    open_spaces,
    ranking_input_of,
    representers_of,
)
from flows.stages.represent.units import embed_rendered
from selection.activations.loading import refuse_encoder
from selection.core.hashing import content_id
from selection.evaluation.baselines.methods import Scorer, Scores, lexical_scorer
from selection.evaluation.baselines.vectors import (
    DenseTable,
    order_as_scores,
    pool_table,
    quantized_tables,
    token_tables,
)
from selection.evaluation.influence.adapted import LEAVE_OUT, load_adapted
from selection.evaluation.labelled import LabelledTarget
from selection.picking.selections import rankings_of


@dataclass(frozen=True)
class Scorers:
    """Makes the scorer of each method of one setting; passes over the pool are shared.

    methods: all that will be asked for, so that one pass can read for all of them.
    """

    bench: BenchPool
    methods: Sequence[Method]

    def refuse(self) -> None:
        """Raise InputError for what methods that train cannot do, before any other computes."""
        for method in self.methods:
            if method.kind in TRAINED:
                model_input = open_model_input(self.config_of(method))
                refuse_encoder(model_input.model, "--model", LEAVE_OUT)
                if method.kind == "less":
                    refuse_too_many(self.bench.prepared.n_examples)
                for name, rows in self.bench.exemplars.items():
                    with_response(name, render_rows(model_input.renderer, rows))

    def of(self, method: Method) -> Scorer:
        """The scorer of a method."""
        if method.kind == "ranking":
            return _ranking_scorer(method, self)
        if method.kind == "sae_cosine":
            return _cosine_scorer(method, self)
        if method.kind in NEEDS_PASS:
            return _dense_scorer(method, self.reading_of(method), self.bench)
        if method.kind in TRAINED:
            return TrainedScorer(method, self)
        if method.kind == "tokens":
            return _token_scorer(method, self)
        return lexical_scorer(method.kind, method.variants, self.bench.texts, method.path)

    @cached_property
    def representers(self) -> dict[str, Representer]:
        """Method name -> its SAE reading."""
        return {
            method.name: open_representer(
                self.bench.configured(method.config), self.bench.workspace, sae_path(method.config)
            )
            for method in self.methods
            if method.config is not None
        }

    @cached_property
    def base(self) -> SelectConfig:
        """The config of the model under test, for baselines that need no SAE."""
        given = self.bench.given
        return SelectConfig.model_validate(
            {
                "pool": "benchmark",
                "exemplars": "benchmark",
                "budget": {"examples": 1},
                "model": {"name": given.model, "hookpoint": given.hookpoint, "dtype": given.dtype},
                "sae": {"path": given.sae},
                "rendering": {"max_length": MAX_LENGTH},
            }
        )

    def config_of(self, method: Method) -> SelectConfig:
        """The config of the model that a baseline reads: the one under test, or the encoder."""
        if method.kind in TRAINED:  # Losses are of responses; no SAE is read.
            rendering = {"counted": "response", "truncation": "keep_response"}
            return self.base.model_copy(
                update={
                    "model": self.base.model.model_copy(update={"hookpoint": "resid@1.0"}),
                    "rendering": self.base.rendering.model_copy(update=rendering),
                }
            )
        if method.kind != "encoder":
            return self.base
        model = ModelConfig(name=str(method.path), hookpoint="resid@1.0")
        return self.base.model_copy(update={"model": model})

    @cached_property
    def reading(self) -> ForwardPass:
        """The one pass over the model under test."""
        model_input = open_model_input(self.base)
        dense = any(m.kind in ("dense", "gate", "split_relu") for m in self.methods)
        representers = {
            each.representation_id: each
            for own in self.representers.values()
            for each in representers_of(own.config, own)
            if each.model_input.model.weights_sha256 == model_input.model.weights_sha256
            and tokens_of(each.model_input) == tokens_of(model_input)
        }
        gate = next((int(m.settings["k"]) for m in self.methods if m.kind == "gate"), None)
        block, own = model_input.hookpoint.block, tuple(representers.values())
        reading = ForwardPass(self.bench, self.base, dense, block, gate, own)
        reading.run()
        return reading

    def reading_of(self, method: Method) -> ForwardPass:
        """The pass that a dense method reads: of the model under test, or the encoder's own."""
        if method.kind != "encoder":
            return self.reading
        config = self.config_of(method)
        reading = ForwardPass(self.bench, config, dense=True, sae_block=None, gate_k=None)
        reading.run()
        return reading


def tokens_of(model_input: ModelInput) -> dict[str, object]:
    """What decides the tokens of a rendering, whichever of them count."""
    settings = model_input.renderer.settings
    return {name: value for name, value in settings.items() if name != "counted"}


def _ranking_scorer(method: Method, scorers: Scorers) -> Scorer:
    """The ordinary stages' own scores; all targets in one pass over the vectors."""
    bench, representer = scorers.bench, scorers.representers[method.name]
    assert method.config is not None
    config = bench.configured(method.config)
    scorers.reading  # noqa: B018 - computes what the shards lack, in the shared pass
    render(bench.workspace, bench.prepared, representer.model_input)
    rendered = representer.rendered(bench.prepared.pool_id)
    embed_rendered(representers_of(config, representer), rendered)
    count_terms(config, representer, rendered)
    targets = embed_targets(representer, config, bench.exemplars)
    spaces = open_spaces(config, representer, bench.prepared.pool_id)
    ranking, _, _ = ranking_input_of(config, spaces, targets)
    scored = pool_scores(config, spaces, ranking)

    def score(target: LabelledTarget) -> Scores:
        scores = scored[target.name]
        if scores.ndim > 1:  # Taking turns gives an order, not comparable scores.
            ranking = rankings_of({target.name: scores}, bench.everyone)[target.name]
            scores = order_as_scores(ranking.rows, len(scores))
        yield "-", bench.spread(scores)

    return score


def _dense_scorer(method: Method, reading: ForwardPass, bench: BenchPool) -> Scorer:
    exemplars = reading.exemplars()
    if method.kind in ("gate", "split_relu"):
        own = {name: each[method.kind] for name, each in exemplars.items()}
        table, queries = quantized_tables(
            list(reading.units(method.kind)), own, bench.example_order
        )

        def score_quantized(target: LabelledTarget) -> Scores:
            rows = queries[target.name]
            yield from _spread(bench, table.jaccard(method.variants, "", rows))
            yield from _spread(bench, table.cosine(method.variants, "cosine/", rows))

        return score_quantized
    by_block: dict[str, list[str]] = {}
    for variant in method.variants:
        block, _, reduced = variant.rpartition("/")
        by_block.setdefault(block or "last", []).append(reduced)
    names = {block: f"{block}/{method.settings['tokens']}" for block in by_block}
    center = bool(method.settings.get("center"))
    tables = {
        block: DenseTable.of(list(reading.units(name)), bench.example_order, center=center)
        for block, name in names.items()
    }

    def score(target: LabelledTarget) -> Scores:
        for block, wanted in by_block.items():
            own = exemplars[target.name][names[block]]
            prefix = "" if method.kind == "encoder" else f"{block}/"
            for reduced, scores in tables[block].cosine(own, wanted):
                yield prefix + reduced, bench.spread(scores)

    return score


def _cosine_scorer(method: Method, scorers: Scorers) -> Scorer:
    """Cosine of the SAE vectors that `best` ranks, with and without idf."""
    bench, representer = scorers.bench, scorers.representers[method.name]
    assert method.config is not None
    scorers.reading  # noqa: B018 - computes what the shards lack, in the shared pass
    rendered = representer.rendered(bench.prepared.pool_id)
    embed_rendered([representer], rendered)
    vectors = pool_vectors(representer, bench.prepared.pool_id)
    targets = embed_targets(representer, method.config, bench.exemplars)
    table = pool_table(vectors, vectors.usable, UNIT, bench.example_order)

    def score(target: LabelledTarget) -> Scores:
        rows = targets[target.name][1].rows
        for name in table.weights:
            yield from _spread(bench, table.cosine(method.variants, f"{name}/", rows, name))

    return score


def _token_scorer(method: Method, scorers: Scorers) -> Scorer:
    """Bag of the model's tokens, those that the model's methods count, cut where they are cut."""
    bench, model_input = scorers.bench, open_model_input(scorers.base)
    rendered = render(bench.workspace, bench.prepared, model_input)
    samples = {
        name: render_rows(model_input.renderer, table) for name, table in bench.exemplars.items()
    }
    batches = [rendered.samples(rows) for rows in bench.batches(UNIT)]
    table, queries = token_tables(
        batches, samples, model_input.renderer.n_token_ids, bench.example_order
    )

    def score(target: LabelledTarget) -> Scores:
        rows = queries[target.name]
        for name in table.weights:
            yield from _spread(bench, table.jaccard(method.variants, f"{name}/", rows, name))
        yield from _spread(bench, table.cosine(method.variants, "cosine/", rows, "idf"))

    return score


class TrainedScorer:
    """Scores of `less` or `loss_drop`, and what they cost."""

    def __init__(self, method: Method, scorers: Scorers) -> None:
        """Render, and, for `less`, compute all gradients."""
        self._method, self._bench = method, scorers.bench
        bench, config = scorers.bench, scorers.config_of(method)
        model_input = open_model_input(config)
        rendered = render(bench.workspace, bench.prepared, model_input)
        self._exemplars = {
            name: render_rows(model_input.renderer, rows) for name, rows in bench.exemplars.items()
        }
        key = content_id(
            {
                "model": model_input.model.weights_sha256,
                "rendering": model_input.renderer.rendering_id,
                "pool": bench.prepared.pool_id,
                "settings": dict(method.settings),
                "dtype": config.model.dtype,
                "version": VERSION,
            }
        )
        self._candidates = Candidates(
            bench.workspace.root / "bench" / method.kind / key,
            bench.prepared.n_examples,
            rendered.samples,
            lambda: load_adapted(
                model_input.model,
                method.settings["rank"],
                method.settings["alpha"],
                config.model.device,
                config.model.dtype,
            ),
        )
        if method.kind == "less":
            n = bench.prepared.n_examples
            with stage(f"gradients {bench.setting}", n, "examples") as handle:
                self._tables = less_tables(self._candidates, bench.example_order, handle.advance)

    def __call__(self, target: LabelledTarget) -> Scores:
        """Scores of all labelled rows, variant by variant."""
        name, own = target.target_id, self._exemplars[target.name]
        if self._method.kind == "less":
            vectors = less_exemplars(self._candidates, name, own)
            for variant in self._method.variants:
                step, _, reduced = variant.partition("/")
                for _, scores in self._tables[step].cosine(vectors[step], [reduced]):
                    yield variant, self._bench.spread(scores)
            return
        drops = loss_drops(self._candidates, name, own, lambda _: None)
        yield from _spread(self._bench, ((each, drops[each]) for each in self._method.variants))

    def seconds(self, target: LabelledTarget) -> dict[str, float]:
        """What was computed once for all targets, and what for this one alone."""
        seconds = self._candidates.seconds
        if self._method.kind == "less":
            return {"shared": seconds("gradients"), "own": seconds("exemplars", target.target_id)}
        own = seconds(f"after/{target.target_id}")
        return {"shared": seconds("before"), "own": own}


def _spread(bench: BenchPool, scores: Scores) -> Scores:
    """Scores of labelled rows from those of examples."""
    for variant, values in scores:
        yield variant, bench.spread(values)
