"""The benchmark by fine-tuning: every arm on every target, each run a file of its own.

What is a file already is read, so a killed benchmark goes on at its first missing run.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from flows.benchmark.setting import BenchPool
from flows.config.base import DEMO
from flows.config.data import FinetuneRequest, UnderTest
from flows.config.load import validated
from flows.finetune.arms import DEFAULT, Arms, methods_of
from flows.finetune.cells import Cell, Laboratory, supply
from flows.finetune.selections import read_selections
from flows.orchestration.progress import stage
from flows.stages.prepare.inputs import packaged
from selection.core.errors import InputError
from selection.core.hashing import content_id, file_sha256
from selection.evaluation.labelled import (
    LabelledPool,
    LabelledTarget,
    Mask,
    read_labelled_pool,
    read_labelled_targets,
)
from selection.finetuning.split import Split, excluded_rows, keep_rows, own_rows, split_pool
from selection.finetuning.summary import ZERO, GroupSummary, summarize
from selection.finetuning.trainee import TraineeTexts, check_trainee, trainee_renderer
from selection.models.resolve import resolve_model
from storage.catalog.snapshot import published_head
from storage.files.atomic import read_json, write_json
from storage.files.workspace import Workspace

VERSION = 2
"""Of the split; raise it when any row would change sides."""

N_GENERAL = 64


def request_of(**values: object) -> FinetuneRequest:
    """A request from the command line. Raises InputError for a wrong value."""
    return validated(FinetuneRequest, values, "saelect bench finetune", {})


@dataclass(frozen=True)
class FinetuneOutcome:
    """A finished benchmark, or as much of it as the hours allowed.

    seen:    targets of whose task the trainee may have seen rows.
    supply:  target -> tokens of the eligible rows of its task.
    n_made, n_left: runs that were made now, and that are still to be made.
    selections: arm -> id and picks of a selection of the catalog.
    """

    benchmark_id: str
    request: FinetuneRequest
    pool: LabelledPool
    targets: list[LabelledTarget]
    seen: list[str]
    supply: dict[str, int]
    removed: dict[str, int]
    results: list[dict[str, Any]]
    summaries: list[GroupSummary]
    started: datetime
    seconds: float
    n_made: int
    n_left: int
    selections: dict[str, tuple[str, list[str]]]


def run_finetune(request: FinetuneRequest, workspace: Workspace) -> FinetuneOutcome:
    """Make the runs that are missing, and summarize all of them."""
    published_head(workspace)  # a catalog that cannot be written to is refused before the work
    started, clock = datetime.now(UTC), time.monotonic()
    arms = request.arms or DEFAULT
    arms = (*arms, *(name for name in request.scores if name not in arms))
    shared = {name: getattr(request, name) for name in ("model", "sae", "hookpoint", "scores")}
    given = UnderTest(**shared)
    methods = methods_of(arms, given)
    selections = read_selections(workspace, arms)
    resolved = resolve_model(
        packaged(f"{DEMO}:model") if request.trainee == DEMO else request.trainee
    )
    check_trainee(resolved, request.tune, request.device)
    renderer = trainee_renderer(resolved, request.max_length)
    with stage("labels", unit="rows") as handle:
        targets = read_labelled_targets(request.targets_file)
        requested = read_labelled_targets(request.targets_file, request.targets or None)
        pool = read_labelled_pool(request.pool, request.subpool)
        excluded = np.zeros(len(pool), np.bool_)
        if request.exclude is not None:
            excluded = excluded_rows(pool, request.exclude)
        split = _split(request, workspace, pool, targets, excluded)
        eligible = keep_rows(pool, split.eligible)
        handle.detail = f"{len(eligible):,} of {len(pool):,} rows to train on"
    bench = BenchPool(eligible, targets, request.setting, workspace, given)
    texts = TraineeTexts(eligible, request.setting, renderer)
    whole = TraineeTexts(pool, request.setting, renderer)
    laboratory = Laboratory(
        request, workspace, resolved, split, whole, Arms(bench, methods, texts.samples, selections)
    )
    tested, supplies = _tested(request, requested, laboratory)
    cells = _cells(request, arms, tested, supplies)
    laboratory.arms.refuse_short_selections(max(cell.budget for cell in cells))
    missing = [cell for cell in cells if not laboratory.file(cell).exists()]
    wanted = {cell.target.name for cell in missing if cell.arm in methods or cell.budget}
    laboratory.arms.score([target for target in tested if target.name in wanted])
    n_made = _run(laboratory, missing, clock, request.hours)
    results = [read_json(laboratory.file(c)) for c in cells if laboratory.file(c).exists()]
    seen = [t.name for t in tested if (own_rows(pool, t) & excluded).any()]
    return FinetuneOutcome(
        benchmark_id=content_id([request.model_dump(mode="json"), started.isoformat()]),
        request=request,
        pool=eligible,
        targets=tested,
        seen=seen,
        supply=supplies,
        removed=split.removed,
        results=results,
        summaries=summarize(results, arms, _groups(tested, seen)),
        started=started,
        seconds=time.monotonic() - clock,
        n_made=n_made,
        n_left=len(missing) - n_made,
        selections=selections,
    )


def _run(laboratory: Laboratory, missing: Sequence[Cell], clock: float, hours: float | None) -> int:
    """Make one run, and more until the hours are over; returns how many were made."""
    made = 0
    with stage("runs", len(missing), "runs") as handle:
        for cell in missing:
            if made and hours is not None and time.monotonic() - clock > 3600 * hours:
                break
            laboratory.run(cell)
            made += 1
            handle.advance(1)
        handle.detail = f"{made} of {len(missing)} runs made"
    return made


def _cells(
    request: FinetuneRequest,
    arms: Sequence[str],
    targets: Sequence[LabelledTarget],
    supplies: dict[str, int],
) -> list[Cell]:
    """All runs: the untrained model first, then seed by seed, so that a part is a whole table."""
    cells = [Cell(target, ZERO, 0, 0) for target in targets]
    for seed in range(request.seeds):
        for target in targets:
            for budget in sorted(set(request.budget_tokens)):
                if 2 * budget <= supplies[target.name]:
                    cells += [Cell(target, arm, budget, seed) for arm in arms if arm != ZERO]
    return cells


def _tested(
    request: FinetuneRequest, requested: Sequence[LabelledTarget], laboratory: Laboratory
) -> tuple[list[LabelledTarget], dict[str, int]]:
    """Targets with at least twice the largest budget in their own task, and the tokens of it.

    Of targets that the request names it is the smallest budget, and InputError is raised for
    one that has less; without names it is raised where none has enough.
    """
    arms, held_out = laboratory.arms, laboratory.split.held_out
    supplies = {
        target.name: supply(arms.bench.pool, target, arms.samples)
        for target in requested
        if target.name in held_out
    }
    least = min(request.budget_tokens) if request.targets else max(request.budget_tokens)
    tested = [target for target in requested if supplies.get(target.name, 0) >= 2 * least]
    short = [target.name for target in requested if target not in tested]
    if short and (request.targets or not tested):
        few, n = short[0] not in held_out, supplies.get(short[0], 0)
        raise InputError(
            f"its task has too few rows to hold {request.held_out} out, and as many to train on"
            if few
            else f"its task has {n:,} tokens to train on, less than twice the budget of {least:,}",
            file=request.targets_file,
            field="targets",
            value=short[0],
            remedy=f"Lower --{'held-out' if few else 'budget-tokens'}, or name other targets.",
        )
    return tested, {target.name: supplies[target.name] for target in tested}


def _split(
    request: FinetuneRequest,
    workspace: Workspace,
    pool: LabelledPool,
    targets: Sequence[LabelledTarget],
    excluded: Mask,
) -> Split:
    """The split of all targets of the file, whichever are named; it is kept as a file."""
    key = content_id(
        [
            VERSION, pool.sha256, [target.target_id for target in targets], request.held_out,
            N_GENERAL, request.setting, request.exclude and file_sha256(Path(request.exclude)),
        ],
        n_hex=24,
    )  # fmt: skip
    file = workspace.root / "bench" / "finetune" / f"split-{key}.json"
    if file.exists():
        stored: dict[str, Any] = dict(read_json(file))
        held_out = {name: np.array(rows, np.int64) for name, rows in stored["held_out"].items()}
        eligible = np.zeros(len(pool), np.bool_)
        eligible[stored["eligible"]] = True
        return Split(held_out, np.array(stored["general"], np.int64), eligible, stored["removed"])
    split = split_pool(
        pool,
        targets,
        excluded,
        n_held_out=request.held_out,
        n_general=N_GENERAL,
        setting=request.setting,
    )
    write_json(
        file,
        {
            "held_out": {name: rows.tolist() for name, rows in split.held_out.items()},
            "general": split.general.tolist(),
            "removed": split.removed,
            "eligible": np.flatnonzero(split.eligible).tolist(),
        },
    )
    return split


def _groups(targets: Sequence[LabelledTarget], seen: Sequence[str]) -> dict[str, list[str]]:
    """All targets; seen and new tasks apart, and T1 and T2, where there are both."""
    names = [target.name for target in targets]
    groups = {"all": names}
    for first, second, is_first in (
        ("seen", "new", lambda t: t.name in seen),
        ("T1", "T2", lambda t: t.kind.startswith("T1")),
    ):
        one = [target.name for target in targets if is_first(target)]
        if 0 < len(one) < len(names):
            groups |= {first: one, second: [name for name in names if name not in one]}
    return groups
