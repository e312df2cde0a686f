"""`saelect bench`: run a comparison and print it, target by target."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from flows.benchmark.run import Outcome
from flows.config.data import BenchRequest
from flows.orchestration.prefect_server import start_prefect
from flows.orchestration.progress import for_terminal, listening
from flows.orchestration.terminal import print_table, say
from selection.core.numbers import plural
from selection.evaluation.summary import BEST, MethodSummary, as_json
from selection.finetuning.statistics import Contrast
from selection.finetuning.summary import GroupSummary
from selection.finetuning.summary import as_json as finetune_json
from storage.files.workspace import open_workspace

if TYPE_CHECKING:
    from flows.finetune.run import FinetuneOutcome

_SHOWN_LOSSES = 8


def bench_retrieval_command(request: BenchRequest, workspace: Path, *, as_json_line: bool) -> None:
    """Run the flow in this process; tables first, then, if asked for, one line of JSON."""
    root = open_workspace(workspace).root
    say(f"saelect: retrieval benchmark in {root}")
    wait_for_server = start_prefect()
    from flows.bench_retrieval import bench_retrieval

    with listening(for_terminal()):
        wait_for_server()
        outcome, report = bench_retrieval(request, str(root))
    for setting, summaries in outcome.summaries.items():
        say(f"\n{setting}: nDCG@1000 per target")
        _print_per_target(outcome, summaries)
        say(f"\n{setting}: means over targets, 95 % bootstrap intervals")
        _print_means(summaries)
        say(NESTED)
        for line in comparison_lines(summaries):
            say(line)
        for method, seconds in outcome.cost[setting].items():
            say(f"{method} took {seconds:,.0f} s for all targets.")
    say(f"\nDone in {outcome.seconds:.0f} s. Report: {report}")
    if as_json_line:
        say(
            json.dumps(
                as_json(
                    outcome.summaries,
                    request.model,
                    outcome.pool.sha256,
                    len(outcome.targets),
                    outcome.cost,
                )
            )
        )


def _print_per_target(outcome: Outcome, summaries: list[MethodSummary]) -> None:
    names = [summary.method for summary in summaries]
    rows = []
    for row, target in enumerate(outcome.targets):
        values = [summary.measures["ndcg"][row] for summary in summaries]
        top = max(values)
        cells = [f"{value:.3f}{'*' if value == top else ' '}" for value in values]
        rows.append((target.name, target.kind[:2], *cells))
    print_table(("target", "kind", *names), rows)


def _print_means(summaries: list[MethodSummary]) -> None:
    kinds = list(summaries[0].ndcg)
    header = ["method", "variant", *kinds, "R-prec", "rec@1%", "rec@5%", "rec@10%", "AP"]
    header += ["tried", "nested", "best - it", "best wins, ties"]
    rows = []
    for summary in summaries:
        cells = [f"{f.mean:.3f} [{f.lo:.3f}, {f.hi:.3f}]" for f in summary.ndcg.values()]
        cells += [
            f"{summary.measures[name].mean():.3f}"
            for name in ("r_precision", "recall_1", "recall_5", "recall_10", "average_precision")
        ]
        cells += [str(summary.n_tried), f"{summary.nested:.3f}"]
        if summary.behind:
            ahead = summary.behind["all"]
            cells.append(f"{ahead.mean:+.3f} [{ahead.lo:+.3f}, {ahead.hi:+.3f}]")
            cells.append(f"{summary.best_wins['all']:.0%}, {summary.best_ties['all']:.0%}")
        rows.append(
            (summary.method, summary.variant, *cells, *[""] * (2 - 2 * bool(summary.behind)))
        )
    print_table(header, rows)


NESTED = (
    "nested: half of the targets choose the variant that the other half measures; tried: how many"
)


def comparison_lines(summaries: list[MethodSummary]) -> list[str]:
    """How `best` compares with each other method, in sentences."""
    if BEST not in {summary.method for summary in summaries}:
        worst = summaries[-1]
        return [f"Last: {worst.method} ({worst.ndcg['all'].mean:.3f})."]
    others = [summary for summary in summaries if summary.method != BEST]
    undecided = [s.method for s in others if s.behind["all"].lo <= 0 < s.behind["all"].hi]
    ahead = [s.method for s in others if s.behind["all"].hi <= 0]
    behind = [s.method for s in others if s.behind["all"].lo > 0]
    lines = [f"Behind best (interval above zero): {', '.join(behind) or 'none'}."]
    if undecided:
        lines.append(f"Not distinguishable from best: {', '.join(undecided)}.")
    if ahead:
        lines.append(f"best LOSES to: {', '.join(ahead)}.")
    for summary in others:
        if summary.lost_to:
            shown = ", ".join(summary.lost_to[:_SHOWN_LOSSES])
            more = len(summary.lost_to) - _SHOWN_LOSSES
            rest = f" and {more} more" if more > 0 else ""
            lines.append(f"best loses to {summary.method} on {shown}{rest}.")
    return lines


def bench_finetune_command(
    given: Mapping[str, object], workspace: Path, *, quick: bool, as_json_line: bool
) -> None:
    """Run the flow in this process; tables first, then, if asked for, one line of JSON."""
    from flows.finetune.quick import QUICK, write_quick_files
    from flows.finetune.run import request_of

    root = open_workspace(workspace).root
    if quick:
        pool, targets = write_quick_files(root / "bench" / "finetune" / "quick")
        given = {"pool": str(pool), "targets_file": str(targets), **QUICK, **given}
    request = request_of(**given)
    say(f"saelect: benchmark by fine-tuning in {root}")
    wait_for_server = start_prefect()
    from flows.bench_finetune import bench_finetune

    with listening(for_terminal()):
        wait_for_server()
        outcome, report = bench_finetune(request, str(root))
    _print_supply(outcome)
    for summary in outcome.summaries:
        n = plural(len(summary.targets), "target")
        say(f"\n{summary.budget:,} tokens, {summary.group}: {n}, 95 % bootstrap intervals")
        _print_gains(summary)
        for contrast in summary.contrasts:
            say(contrast_line(contrast))
    if outcome.n_left:
        say(f"\n{plural(outcome.n_left, 'run')} left: the same command makes them.")
    say(f"\nDone in {outcome.seconds:.0f} s. Report: {report}")
    if as_json_line:
        head = {
            "trainee": request.trainee,
            "pool_sha256": outcome.pool.sha256,
            "n_targets": len(outcome.targets),
            "n_runs": len(outcome.results),
            "n_left": outcome.n_left,
        }
        say(json.dumps(finetune_json(outcome.summaries, head)))


def _print_supply(outcome: "FinetuneOutcome") -> None:
    rows = []
    for target in outcome.targets:
        zero = [r for r in outcome.results if r["target"] == target.name and r["arm"] == "zero"]
        bits = sum(zero[0]["bits"]) / sum(zero[0]["n_bytes"]) if zero else float("nan")
        task = "seen" if target.name in outcome.seen else "new"
        if outcome.request.exclude is None:
            task = ""
        supply = f"{outcome.supply[target.name]:,}"
        rows.append((target.name, target.kind[:2], task, supply, f"{bits:.3f}"))
    print_table(("target", "kind", "task", "tokens of it", "bits/byte untrained"), rows)


def _print_gains(summary: GroupSummary) -> None:
    rows = []
    for each in summary.arms:
        shares = ["" if value is None else f"{value:.3f}" for value in (each.exact, each.right)]
        gap = f"{each.gap.mean:.2f} [{each.gap.lo:.2f}, {each.gap.hi:.2f}]" if each.gap else ""
        gain = f"{each.gain.mean:+.3f} [{each.gain.lo:+.3f}, {each.gain.hi:+.3f}]"
        forgotten = "" if each.forgotten is None else f"{each.forgotten:+.3f}"
        rest = (forgotten, f"{each.response_tokens:,.0f}")
        rows.append((each.arm, gain, gap, *shares, *rest))
    header = ("arm", "gain", "gap closed", "exact", "right label", "forgotten", "response tokens")
    print_table(header, rows)


def contrast_line(contrast: Contrast) -> str:
    """How `best` compares with another arm, in a sentence."""
    d = contrast.difference
    line = (
        f"best - {contrast.against}: {d.mean:+.4f} [{d.lo:+.4f}, {d.hi:+.4f}],"
        f" p {contrast.p_holm:.3f} (Holm), {contrast.wins} of {contrast.wins + contrast.losses}"
        f" targets, sign test {contrast.p_sign:.3f}: {contrast.verdict}"
    )
    if contrast.verdict == "not distinguishable" and contrast.n_targets:
        line += f"; about {contrast.n_targets:,} targets would tell"
    return f"{line}."
