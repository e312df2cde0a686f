"""The label-free check of a run: held-out exemplars, and how deep the ranking is informative."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import pyarrow as pa

from flows.config.jobs import SelectConfig
from flows.config.rules import CheckConfig
from flows.orchestration.progress import Advance, stage
from flows.stages.decide.run_input import RunInput
from selection.data.samples import texts_of
from selection.evaluation.label_free import HeldOut, check_held_out, sample_rows
from selection.evaluation.ranking_depth import RankingDepth, measure_depth, n_indistinguishable
from selection.picking.selections import JOINT, Selection
from selection.records import Exemplars
from storage.pools.pool import PreparedPool


@dataclass(frozen=True)
class TargetCheck:
    """The check of one target of one main selection.

    n_rows:   samples that exemplars were ranked among; n_ranked: all that could be picked.
    held_out: method -> standings, the run's own method first; empty with a single exemplar.
    depth:    None where the ranking is not by similarity, or the pool is too small for it.
    """

    selection_id: str
    target: str
    exemplars: Exemplars
    n_rows: int
    n_ranked: int
    held_out: Mapping[str, HeldOut]
    depth: RankingDepth | None


def check_label_free(
    config: SelectConfig,
    pool: PreparedPool,
    given: RunInput,
    targets: Mapping[str, tuple[pa.Table, Exemplars]],
    decided: Sequence[Selection],
) -> list[TargetCheck]:
    """The check of every target of every main selection; empty where the config turns it off."""
    rule = config.check
    if rule is None:
        return []
    rows = sample_rows(given.eligibility.eligible, rule.max_rows, config.seed)
    with stage("held-out exemplars", len(rows), "samples") as handle:
        held_out = check_held_out(
            given.ranking,
            config.ranking.exemplar_reduction,
            rows,
            pool.example_ids(),
            lambda rows: texts_of(pool.examples_at(rows)),
            {name: texts_of(table) for name, (table, _) in targets.items()},
            method=config.ranking.method,
            n_folds=rule.folds,
            seed=config.seed,
            threads=config.compute.n_threads,
            advance=handle.advance,
        )
        handle.detail = _in_short(held_out, config.ranking.method)
    each = [
        (main, name)
        for main in decided
        if main.role == "main"
        for name in (targets if main.target == JOINT and len(targets) > 1 else [main.target])
    ]
    depths = _depths(config, rule, pool, given, each, held_out)
    return [
        TargetCheck(
            main.selection_id,
            name,
            targets[name][1],
            len(rows),
            given.eligibility.n,
            held_out.get(name, {}),
            depth,
        )
        for (main, name), depth in zip(each, depths, strict=True)
    ]


def _depths(
    config: SelectConfig,
    rule: CheckConfig,
    pool: PreparedPool,
    given: RunInput,
    each: Sequence[tuple[Selection, str]],
    held_out: Mapping[str, Mapping[str, HeldOut]],
) -> list[RankingDepth | None]:
    """Of every selection and target."""
    if config.ranking.method != "jaccard":
        return [None for _ in each]
    n_ranks = sum(len(main.of_target(name)[0]) for main, name in each)
    with stage("ranking depth", n_ranks, "ranks") as handle:
        depths = [
            _depth(config, rule, pool, given, name, main, held_out.get(name, {}), handle.advance)
            for main, name in each
        ]
        measured = [
            f"{depth.depth:,}{f' ({name})' if len(each) > 1 else ''}"
            for (_, name), depth in zip(each, depths, strict=True)
            if depth is not None
        ]
        handle.detail = (
            f"better than random down to rank {', '.join(measured)} of {given.eligibility.n:,}"
            if measured
            else "the pool is too small to draw random samples from"
        )
    return depths


def _depth(
    config: SelectConfig,
    rule: CheckConfig,
    pool: PreparedPool,
    given: RunInput,
    name: str,
    main: Selection,
    held_out: Mapping[str, HeldOut],
    advance: Advance,
) -> RankingDepth | None:
    """Samples that exemplars cannot be told from are kept out of the random samples."""
    return measure_depth(
        given.ranking,
        config.ranking.exemplar_reduction,
        name,
        main.of_target(name),
        given.eligibility.eligible,
        pool.example_ids(),
        n_alike=n_indistinguishable(held_out.get(main.method), given.eligibility.n),
        pseudo_exemplars=rule.pseudo_exemplars,
        draws=rule.draws,
        max_rows=rule.max_rows,
        seed=config.seed,
        threads=config.compute.n_threads,
        advance=advance,
    )


def _in_short(held_out: Mapping[str, Mapping[str, HeldOut]], method: str) -> str:
    if not held_out:
        return "a single exemplar cannot be held out"
    medians = [
        f"{name} above {100 * (1 - median(each[method].shares_above.tolist())):.1f} %"
        for name, each in held_out.items()
    ]
    return f"{', '.join(medians)} of the pool"
