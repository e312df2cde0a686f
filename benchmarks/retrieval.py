r"""Every method of `saelect bench retrieval` on a labelled pool, as a page that names the winners.

    python -m benchmarks.retrieval --pool POOL --targets TARGETS --workspace DIR [--page PAGE] \
        [--setting full] [--subpool IDS [--encoder FOLDER] [--causal-lm FOLDER --sae FOLDER]]

The packaged model reads the whole pool, in both settings unless one is named; with `--subpool` only
its rows, and two more models can read the same rows: a pretrained sentence encoder, through an SAE
that is first trained on its activations, and a causal language model in bfloat16, through an SAE
that is given (see benchmarks.causal_lm). Then the page also averages the models.
Vectors, results and the SAE stay in the workspace: a killed run goes on, a second one only reads.
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.ablation.table import RESULTS, optimism
from flows.bench_retrieval import bench_retrieval
from flows.benchmark.methods import DEFAULT
from flows.benchmark.run import Outcome
from flows.cli.bench import comparison_lines
from flows.config.data import BenchRequest
from flows.config.jobs import VectorJob
from flows.config.model import ComputeConfig
from flows.orchestration.prefect_server import start_prefect
from flows.orchestration.progress import for_terminal, listening
from flows.train_sae import train_sae
from selection.evaluation.metrics import N_RESAMPLES, bootstrap_mean
from selection.evaluation.summary import BEST, MethodSummary
from storage.catalog.snapshot import open_snapshot
from storage.files.atomic import write_bytes
from storage.files.workspace import Workspace, open_workspace

PAPER_BOS = "paper_bos: {preset: paper, rendering: {counted: every_token}}\n"
"""The paper leaves open whether BOS counts: `paper` leaves it out."""

ENCODER = {
    "hookpoint": "resid@3",
    "train": {
        "num_latents": 2048,
        "k": 16,
        "tokens": 800_000,
        "batch_tokens": 1024,
        "learning_rate": 0.001,
    },
}
"""Where the encoder is read, and the SAE that is trained there."""

INTRO = """# Retrieval: does the ranking find what was asked for?

{n_rows:,} labelled samples, {n_targets} target tasks, graded relevance; each method ranks the whole
pool by a target's exemplars. **T1**: other samples of the same task are in the pool. **T2**: the
whole source is absent, only a related kind of task is there. Settings: **full** (instruction,
input and answer) and **instance** (the bare question, where wording common to a task helps least).
nDCG@1000, means over targets with 95 % bootstrap intervals ({resamples:,} resamples of targets;
differences are paired). A baseline stands by its best variant on these targets, which favors it;
*tried*: how many; *nested*: half of the targets choose the variant that the other half measures.
`random` stands by the mean of three seeds. `best` itself was chosen among {tried} settings on these
targets (`docs/benchmarks/ablation.md`: 12,000 rows, instance): the best of them has {plain:.3f},
nested {nested:.3f}; `best`, which is not that one, {best:.3f}. *best - it*: how far `best` is
ahead; *wins, ties*: on what share of targets `best` is strictly ahead, and equal (both at the
ceiling). Nothing here says that training on the picks helps.

"""


def main() -> None:
    """Measure what is missing, write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pool", type=Path, required=True, help="labelled pool, Parquet")
    parser.add_argument("--targets", type=Path, required=True, help="target tasks, JSON lines")
    parser.add_argument("--workspace", type=Path, required=True, help="keeps vectors and results")
    parser.add_argument("--subpool", type=Path, help="ids of the rows that the encoder reads")
    parser.add_argument("--encoder", type=Path, help="folder of a sentence encoder")
    parser.add_argument("--causal-lm", type=Path, help="folder of a causal language model")
    parser.add_argument("--sae", type=Path, help="folder of its SAE")
    parser.add_argument("--setting", default="both", help="full, instance or both")
    parser.add_argument("--page", type=Path, help="Markdown page to write")
    arguments = parser.parse_args()
    workspace = open_workspace(arguments.workspace)
    start_prefect()()
    with listening(for_terminal()):
        models = {"The packaged model": of_packaged_model(arguments, workspace)}
        if arguments.encoder:
            models[f"A pretrained encoder, read at {ENCODER['hookpoint']}"] = of_encoder(
                arguments, workspace
            )
        if arguments.causal_lm:
            name = f"A causal language model, `{arguments.causal_lm.name}` in bfloat16"
            models[name] = of_causal_lm(arguments, workspace)
    seconds = _seconds(workspace, next(iter(models.values())))
    text = "".join(page(models, seconds))
    print(text)
    if arguments.page is not None:
        write_bytes(arguments.page, text.encode())


def of_packaged_model(arguments: argparse.Namespace, workspace: Workspace) -> Outcome:
    """All methods on the packaged model."""
    bos = workspace.root / "bench" / "paper_bos.yaml"
    write_bytes(bos, PAPER_BOS.encode())
    request = _request(
        arguments,
        methods=(*DEFAULT, str(bos)),
    )
    return bench_retrieval(request, str(workspace.root))[0]


def of_encoder(arguments: argparse.Namespace, workspace: Workspace) -> Outcome:
    """All methods but gate neurons, which an encoder has none of."""
    model = {"name": str(arguments.encoder), "hookpoint": ENCODER["hookpoint"]}
    job = VectorJob.model_validate(
        {
            "pool": str(arguments.pool),
            "model": model,
            "sae": {"train": ENCODER["train"]},
            "rendering": {"max_length": 256},
        }
    )
    request = _request(
        arguments,
        methods=tuple(name for name in DEFAULT if name != "gate"),
        model=str(arguments.encoder),
        sae=train_sae(job, str(workspace.root)),
    )
    return bench_retrieval(request, str(workspace.root))[0]


def of_causal_lm(arguments: argparse.Namespace, workspace: Workspace) -> Outcome:
    """All methods on a causal language model."""
    request = _request(
        arguments,
        model=str(arguments.causal_lm),
        sae=str(arguments.sae),
        dtype="bfloat16",
    )
    return bench_retrieval(request, str(workspace.root))[0]


def _request(arguments: argparse.Namespace, **given: object) -> BenchRequest:
    """Rows, targets and setting of every model."""
    files = {name: getattr(arguments, name) for name in ("pool", "targets", "subpool")}
    named = {name: str(file) for name, file in files.items() if file is not None}
    return BenchRequest.model_validate({**named, "setting": arguments.setting, **given})


def page(models: Mapping[str, Outcome], seconds: Sequence[float]) -> Iterator[str]:
    """The Markdown page, piece by piece.

    models:  heading -> comparison, all of the same rows and targets; the packaged model's first.
    seconds: what runs of the first comparison took, from an empty workspace and again.
    """
    first = next(iter(models.values()))
    yield INTRO.format(
        n_rows=len(first.pool),
        n_targets=len(first.targets),
        resamples=N_RESAMPLES,
        **optimism(json.loads(RESULTS.read_text(encoding="utf-8"))["cells"]),
    )
    if len(models) > 1:
        yield (
            f"## {len(models)} models together\n\nA target's value is the mean over models and"
            " settings; a baseline stands by its best variant in each. *best behind it*: in how"
            " many of model and setting.\n\n"
        )
        yield _together(list(models.values())) + "\n"
    for heading, outcome in models.items():
        yield f"## {heading}\n\n"
        yield from _tables(outcome)
    if len(models) == 1:
        yield (
            f"All methods took {seconds[0] / 60:.0f} minutes from an empty workspace on"
            f" {_cores()} cores, and {seconds[-1] / 60:.1f} minutes where every result was"
            " there.\n"
        )


def _together(outcomes: Sequence[Outcome]) -> str:
    """Methods that every model was compared with: means, and how far `best` is ahead."""
    tables = [
        {summary.method: summary.measures["ndcg"] for summary in summaries}
        for outcome in outcomes
        for summaries in outcome.summaries.values()
    ]
    names = [name for name in tables[0] if all(name in table for table in tables)]
    values = {name: np.mean([table[name] for table in tables], axis=0) for name in names}
    rows = []
    for name in sorted(names, key=lambda name: -float(values[name].mean())):
        behind = bootstrap_mean(values[BEST] - values[name])
        ahead = f"{behind.mean:+.3f} [{behind.lo:+.3f}, {behind.hi:+.3f}]"
        losses = sum(float(table[BEST].mean()) < float(table[name].mean()) for table in tables)
        rows.append(
            [
                f"**{name}**" if name == BEST else name,
                f"{values[name].mean():.3f}",
                "" if name == BEST else ahead,
                "" if name == BEST else f"{losses} of {len(tables)}",
            ]
        )
    return _markdown(["method", "nDCG@1000", "best - it", "best behind it"], rows)


def _tables(outcome: Outcome) -> Iterator[str]:
    for setting, summaries in outcome.summaries.items():
        yield f"### Setting {setting}\n\n" + _means(summaries) + "\n"
        yield "\n".join(f"- {line}" for line in comparison_lines(summaries)) + "\n\n"
        yield f'<details markdown="1"><summary>{setting}: every target</summary>\n\n'
        yield _per_target(outcome, summaries) + "\n</details>\n\n"


def _means(summaries: Sequence[MethodSummary]) -> str:
    kinds = [kind for kind in summaries[0].ndcg if kind != "all"]
    head = ["method", "stands by", *kinds, "all", "tried", "nested", "R-precision", "AP"]
    head += ["best - it", "wins, ties"]
    rows = []
    for summary in summaries:
        everywhere, behind = summary.ndcg["all"], summary.behind.get("all")
        rows.append(
            [
                f"**{summary.method}**" if summary.method == BEST else summary.method,
                summary.variant,
                *(f"{summary.ndcg[kind].mean:.3f}" for kind in kinds),
                f"{everywhere.mean:.3f} [{everywhere.lo:.3f}, {everywhere.hi:.3f}]",
                str(summary.n_tried),
                f"{summary.nested:.3f}",
                f"{summary.measures['r_precision'].mean():.3f}",
                f"{summary.measures['average_precision'].mean():.3f}",
                f"{behind.mean:+.3f} [{behind.lo:+.3f}, {behind.hi:+.3f}]" if behind else "",
                f"{summary.best_wins['all']:.0%}, {summary.best_ties['all']:.0%}" if behind else "",
            ]
        )
    return _markdown(head, rows)


def _per_target(outcome: Outcome, summaries: Sequence[MethodSummary]) -> str:
    rows = []
    for row, target in enumerate(outcome.targets):
        values = [summary.measures["ndcg"][row] for summary in summaries]
        cells = [f"**{value:.3f}**" if value == max(values) else f"{value:.3f}" for value in values]
        rows.append([target.name, target.kind[:2], *cells])
    return _markdown(["target", "kind", *(summary.method for summary in summaries)], rows)


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * 2 + ["---:"] * (len(head) - 2), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _seconds(workspace: Workspace, outcome: Outcome) -> list[float]:
    """What runs of all these methods took in this workspace, the first one cold."""
    with open_snapshot(workspace) as connection:
        rows = connection.execute(
            "SELECT seconds, methods FROM benchmark WHERE pool_sha256 = ? AND n_rows = ?"
            " AND model = ? ORDER BY created_at",
            [outcome.pool.sha256, len(outcome.pool), outcome.request.model],
        ).fetchall()
    wanted = {method.name for method in outcome.methods}
    return [float(seconds) for seconds, methods in rows if wanted <= json.loads(methods).keys()]


def _cores() -> int:
    return ComputeConfig().n_threads


if __name__ == "__main__":
    main()
