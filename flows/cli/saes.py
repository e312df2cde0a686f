"""`saelect train-sae` and `saelect describe`: an SAE of your own, and its latents."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from flows.config.load import load_config, load_vector_job
from flows.orchestration.prefect_server import start_prefect
from flows.orchestration.progress import for_terminal, listening
from flows.orchestration.terminal import one_line, print_table, say
from selection.core.errors import InputError
from selection.core.numbers import plural
from selection.sae.formats.load import read_sae_info
from selection.sae.interpret.latents_file import explanation_words
from storage.export.delphi import WINDOW
from storage.files.workspace import EXPLANATIONS, open_workspace

_SHOWN = 10
_BEST = 4  # latents of a target


def describe_from_config(
    config_name: str,
    workspace: Path,
    n_samples: int,
    latents: Sequence[int],
    delphi: Path | None = None,
    delphi_window: int | None = None,
) -> None:
    """Describe, keep the file, and show some latents.

    delphi, delphi_window: folder and tokens of an example of a cache for delphi, where one is
    wanted.
    """
    if delphi is None and delphi_window is not None:
        raise InputError(
            "is for a cache, and no cache is written",
            field="--delphi-window",
            remedy="Name its folder with --delphi FOLDER.",
        )
    config, home = load_vector_job(config_name), open_workspace(workspace)
    from flows.stages.describe import describe_latents

    with listening(for_terminal()):
        window = delphi_window or WINDOW
        file = describe_latents(config, home, n_samples, delphi, window, latents)
    if delphi is not None:
        say(f"delphi's LatentDataset reads {delphi} with example_ctx_len={window}.\n")
    rows: list[dict[str, Any]] = pq.read_table(file).to_pylist()
    known = {row["latent"]: row for row in rows}
    explained = explanation_words(file.with_name(EXPLANATIONS))
    missing = [latent for latent in latents if latent not in known]
    if missing:
        raise InputError(
            "this latent fired on none of the samples",
            field="--latent",
            value=missing[0],
            remedy="Read more of the pool (--samples).",
        )
    leaning = sorted(rows, key=lambda row: -max((f["lift"] for f in row["facets"]), default=0.0))
    for row in [known[latent] for latent in latents] or leaning[:_SHOWN]:
        for line in [*lines_of(row), *(f"    {each}" for each in explained.get(row["latent"], ()))]:
            say(line)
    say(f"\n{len(rows):,} latents in {file}; the next run shows them in `saelect why` and reports.")
    say("These are hints, not explanations.")


def refuse_beside(option: str, others: Mapping[str, object]) -> None:
    """Raise InputError where another option is given that does not go with one."""
    for name, value in others.items():
        if value:
            remedy = "Leave one of the two out."
            raise InputError(f"does not go with {option}", field=name, remedy=remedy)


def import_from_config(
    config_name: str, workspace: Path, path: Path, others: Mapping[str, object]
) -> None:
    """Keep explanations that others wrote, and say what was read and what was left out.

    others: options that do not go with it, as they were given.
    """
    refuse_beside("--import", others)
    config, home = load_vector_job(config_name), open_workspace(workspace)
    from flows.stages.describe import import_explanations

    read = import_explanations(config, home, path)
    n_scored = sum(each.score is not None for each in read.of_latent.values())
    say(f"{len(read.of_latent):,} latents explained by {read.source}, {n_scored:,} with a score.")
    for what, n in sorted(read.left_out.items()):
        say(f"  left out: {n:,} {what}")
    for latent, each in sorted(read.of_latent.items())[:_SHOWN]:
        say(f"latent {latent}  {each.words(read.source)}")
    say("`saelect why` and reports show them. They are hints, not explanations.")


def measure_from_config(config_name: str, workspace: Path) -> None:
    """Say how much of what tells each target from the pool the SAE's latents carry."""
    config, home = load_config(config_name), open_workspace(workspace)
    from flows.stages.describe import auc_rows, measure_targets

    with listening(for_terminal()):
        measured = measure_targets(config, home)
    counts = next(iter(measured.values()))[0].latents_auc
    say("\nAUC: the chance to tell a held-out exemplar from a random sample of the pool.")
    rows = []
    for name, (quality, _) in measured.items():
        cells = []
        for _, auc, _ in auc_rows(quality):
            low, high = quality.interval(auc)
            cells.append(f"{auc:.3f} [{low:.2f}, {high:.2f}]")
        kept = "" if quality.kept is None else f"{quality.kept:.0%}"
        rows.append((name, f"{quality.n_exemplars}", *cells, kept))
    latents = (plural(n, "latent") for n in counts)
    print_table(("target", "exemplars", "activations", *latents, "kept"), rows)
    say("The activations bound what latents can give. In brackets: 95 % intervals. kept: share of")
    say("the separation of the activations that is left in the reconstructions. The best latents:")
    for name, (_, words) in measured.items():
        say(f"{name}")
        for each in words[:_BEST]:
            say(f"    {one_line(each)}")
    say("`saelect report SELECTION` shows the figures, for selections with these exemplars.")


def lines_of(row: Mapping[str, Any]) -> list[str]:
    """One latent for people."""
    lines = [f"latent {row['latent']}  on {row['density']:.2%} of tokens  {row['description']}"]
    for facet in row["facets"] or []:
        lines.append(
            f"    {facet['column']:<10} {facet['label']}: {facet['share']:.0%} of its samples,"
            f" {facet['lift']:.1f} times as many as in the pool"
        )
    if row["promotes"]:
        promoted, suppressed = (
            " ".join(repr(t) for t in row[n][:5]) for n in ("promotes", "suppresses")
        )
        lines.append(
            f"    lens       {one_line(promoted)} against {one_line(suppressed)}"
            f" (kurtosis {row['kurtosis']:.1f})"
        )
    return lines


_BARS = "▁▂▃▄▅▆▇█"
_MOST_BARS = 60


def train_from_config(config_name: str, workspace: Path, overrides: Mapping[str, object]) -> None:
    """Run the flow in this process and print quality, curve and where the files are."""
    started = time.monotonic()
    config, home = load_vector_job(config_name, overrides), open_workspace(workspace)
    if config.sae.train is None:
        raise InputError(
            "there is nothing to train",
            file=config_name,
            field="sae.train",
            remedy="Write `sae: {train: {num_latents: 4096, k: 32, tokens: 2000000}}`.",
        )
    say(f"saelect: train an SAE in {home.root}")
    wait_for_server = start_prefect()
    from flows.train_sae import train_sae

    with listening(for_terminal()):
        wait_for_server()
        folder = train_sae(config, str(home.root))
    say(f"\nDone in {time.monotonic() - started:.0f} s.")
    for line in summary(Path(folder)):
        say(line)


def summary(folder: Path) -> list[str]:
    """What the SAE in `folder` is and how its training went, line by line."""
    info = read_sae_info(folder)
    training: Any = info.record.get("training") or {}
    quality: Any = info.record.get("quality") or {}
    copy = folder.parent / "saelens" / folder.name
    lines = [f"  SAE       {folder} ({info.family})"]
    lines += [f"  copy      {copy} (SAELens)"] if copy.is_dir() else []
    if training:
        lines.append(
            f"  training  FVU {training['fvu']:.3f}, L0 {training['l0']:.1f},"
            f" dead {training['dead_share']:.1%} after {training['n_tokens']:,} tokens"
        )
        lines += [f"  FVU       {sparkline([point[1] for point in training.get('curve', [])])}"]
    if quality:
        lines.append(
            f"  held out  FVU {quality['fvu']:.3f}, L0 {quality['l0']:.1f} on"
            f" {quality['n_tokens']:,} tokens of the shipped texts"
        )
    return [
        *lines,
        f"Next: `sae: {{path: {folder}}}` in a config, or keep `train`: it is not trained twice.",
    ]


def sparkline(values: list[float]) -> str:
    """Values as a row of bars, at most 60, the highest for the largest."""
    if not values:
        return ""
    step = max(1, -(-len(values) // _MOST_BARS))
    parts = [max(values[first : first + step]) for first in range(0, len(values), step)]
    top = max(parts) or 1.0
    return "".join(_BARS[min(7, int(8 * value / top))] for value in parts)
