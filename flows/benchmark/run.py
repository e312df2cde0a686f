"""The retrieval benchmark: every method on every target, each result a file, resumable at any one.

A result is keyed by what decides it: pool, target, setting, model, SAE, the method's settings. The
same comparison again reads files only; a new method costs its own scores.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flows.benchmark.methods import NEEDS_PASS, TRAINED, Method, find_methods
from flows.benchmark.scorers import Scorers, TrainedScorer
from flows.benchmark.setting import BenchPool
from flows.benchmark.trained import VERSION as TRAINED_VERSION
from flows.config.data import BenchRequest
from flows.config.load import validated
from flows.orchestration.progress import stage
from flows.stages.prepare.render import open_model_input, sae_path
from selection.core.errors import InputError
from selection.core.hashing import content_id, file_sha256
from selection.evaluation.labelled import (
    SETTINGS,
    LabelledPool,
    LabelledTarget,
    Setting,
    read_labelled_pool,
    read_labelled_targets,
)
from selection.evaluation.metrics import measure, order_by_score
from selection.evaluation.summary import Measured, MethodSummary, kinds_of, summarize
from selection.sae.formats.load import load_sae
from storage.catalog.snapshot import published_head
from storage.files.atomic import read_json, write_json
from storage.files.workspace import Workspace, file_name

VERSION = 2
"""Of scores and measures; raise it when any result would change."""


def request_of(**values: object) -> BenchRequest:
    """A request from the command line. Raises InputError for a wrong value."""
    return validated(BenchRequest, values, "saelect bench retrieval", {})


def settings_of(request: BenchRequest) -> tuple[Setting, ...]:
    """The settings that are asked for."""
    return SETTINGS if request.setting == "both" else (request.setting,)


@dataclass(frozen=True)
class Outcome:
    """A finished benchmark.

    measured:  setting -> method -> target -> variant -> measure -> value.
    summaries: setting -> methods, best first.
    cost:      setting -> method -> seconds, of methods that train a model.
    """

    benchmark_id: str
    request: BenchRequest
    pool: LabelledPool
    targets: list[LabelledTarget]
    methods: list[Method]
    measured: dict[str, dict[str, Measured]]
    summaries: dict[str, list[MethodSummary]]
    cost: dict[str, dict[str, float]]
    started: datetime
    seconds: float

    def n_of_kind(self, kind: str) -> int:
        """Targets of kind T1, T2 or all."""
        return int(kinds_of(self.targets)[kind].sum())


def run_benchmark(request: BenchRequest, workspace: Workspace) -> Outcome:
    """Measure what is not measured yet, and summarize all of it."""
    published_head(workspace)  # a catalog that cannot be written to is refused before the work
    started, clock = datetime.now(UTC), time.monotonic()
    methods = find_methods(request.methods, request)
    with stage("labels", unit="rows") as handle:
        targets = read_labelled_targets(request.targets)
        pool = read_labelled_pool(request.pool, request.subpool)
        _refuse_what_cannot_be_measured(pool, targets, request)
        handle.detail = f"{len(pool):,} labelled rows, {len(targets)} targets"
    measured: dict[str, dict[str, Measured]] = {}
    cost: dict[str, dict[str, float]] = {}
    for setting in settings_of(request):
        bench = BenchPool(pool, targets, setting, workspace, request)
        measured[setting], cost[setting] = measure_setting(bench, methods)
    return Outcome(
        benchmark_id=content_id([request.model_dump(mode="json"), started.isoformat()]),
        request=request,
        pool=pool,
        targets=targets,
        methods=methods,
        measured=measured,
        summaries={
            setting: summarize(methods, measures, targets) for setting, measures in measured.items()
        },
        cost=cost,
        started=started,
        seconds=time.monotonic() - clock,
    )


def _refuse_what_cannot_be_measured(
    pool: LabelledPool, targets: Sequence[LabelledTarget], request: BenchRequest
) -> None:
    without = [target.name for target in targets if pool.grades(target).max(initial=0) <= 0]
    if without:
        raise InputError(
            f"no row of the pool is relevant for {', '.join(without)}: no ranking could be better"
            " than another",
            file=request.subpool or request.pool,
            field="target",
            value=without[0],
            remedy="Take such targets out of the targets file, or use a larger sub-pool.",
        )


def measure_setting(
    bench: BenchPool, methods: Sequence[Method]
) -> tuple[dict[str, Measured], dict[str, float]]:
    """Method -> target -> variant -> measures; and method -> seconds, see `Outcome`.

    Scores are computed only where a file is missing.
    """
    files = {
        method.name: _result_files(bench, method, identity_of(method, bench)) for method in methods
    }
    missing = {
        method.name: [t for t in bench.targets if not files[method.name][t.name].exists()]
        for method in methods
    }
    scorers = Scorers(bench, [method for method in methods if missing[method.name]])
    scorers.refuse()
    for method in scorers.methods:
        scorer = scorers.of(method)  # Passes and tables are stages of their own.
        with stage(
            f"{method.name} {bench.setting}", len(missing[method.name]), "targets"
        ) as handle:
            for target in missing[method.name]:
                grades = bench.pool.grades(target)
                measures = {
                    variant: asdict(measure(grades[order_by_score(scores, bench.pool.id_order)]))
                    for variant, scores in scorer(target)
                }
                result: dict[str, object] = {
                    "method": method.name,
                    "target": target.name,
                    "setting": bench.setting,
                }
                if isinstance(scorer, TrainedScorer):
                    result["seconds"] = scorer.seconds(target)
                write_json(files[method.name][target.name], {**result, "measures": measures})
                handle.advance(1)
            handle.detail = f"{len(missing[method.name])} targets measured"
    results: dict[str, dict[str, Any]] = {
        name: {target: read_json(file) for target, file in by_target.items()}
        for name, by_target in files.items()
    }
    measured: dict[str, Measured] = {
        name: {target: result["measures"] for target, result in by_target.items()}
        for name, by_target in results.items()
    }
    cost = {name: _cost(list(by_target.values())) for name, by_target in results.items()}
    return measured, {name: seconds for name, seconds in cost.items() if seconds}


def _cost(results: Sequence[Mapping[str, Any]]) -> float:
    """Seconds for all targets of a method; what they share is counted once."""
    seconds = [result["seconds"] for result in results if "seconds" in result]
    shared = max((each["shared"] for each in seconds), default=0.0)
    return float(shared + sum(each["own"] for each in seconds))


def _result_files(bench: BenchPool, method: Method, identity: object) -> dict[str, Path]:
    """Target -> where its result is."""
    folder = bench.workspace.root / "bench" / "results" / bench.setting / file_name(method.name)
    files = {}
    for target in bench.targets:
        key = content_id(
            [VERSION, bench.pool.sha256, target.target_id, bench.setting, identity], n_hex=24
        )
        files[target.name] = folder / f"{file_name(target.name)}-{key}.json"
    return files


def identity_of(method: Method, bench: BenchPool) -> list[object]:
    """Everything that decides a method's scores besides pool, target and setting."""
    identity: list[object] = [method.kind, dict(method.settings), method.variants]
    if method.kind == "external" and method.path is not None:
        identity.append(file_sha256(method.path))
    if method.kind in TRAINED:
        identity.append(TRAINED_VERSION)
    if method.kind in (*NEEDS_PASS, *TRAINED, "tokens", "ranking"):
        scorers = Scorers(bench, ())
        config = method.config or scorers.config_of(method)
        model_input = open_model_input(config)
        identity += [
            model_input.model.weights_sha256,
            str(model_input.hookpoint),
            model_input.renderer.settings,
            config.model.dtype,
        ]
        if method.config is not None:
            identity.append(load_sae(sae_path(config)).info.sae_id)
    return identity
