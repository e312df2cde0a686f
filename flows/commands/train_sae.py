"""`saelect train-sae`: train the SAE of a config, and say how good it became."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flows import quiet_prefect
from flows.commands.terminal import say
from flows.config.file import load_vector_job
from flows.progress import for_terminal, listening
from selection.errors import InputError
from selection.sae.formats import read_sae_info
from storage.workspace import open_workspace

_BARS = "▁▂▃▄▅▆▇█"
_MOST_BARS = 60


def train_from_config(config_name: str, workspace: Path, overrides: Mapping[str, object]) -> None:
    """Run the flow in this process and print quality, curve and where the files are."""
    started = time.monotonic()
    config, place = load_vector_job(config_name, overrides), open_workspace(workspace)
    if config.sae.train is None:
        raise InputError(
            "there is nothing to train",
            file=config_name,
            field="sae.train",
            remedy="Write `sae: {train: {num_latents: 4096, k: 32, tokens: 2000000}}`.",
        )
    say(f"saelect: train an SAE in {place.root}")
    say(f"  Prefect   {os.environ.get('PREFECT_API_URL') or 'ephemeral server, starting'}")
    quiet_prefect.leave_the_terminal_alone()
    from flows.train_sae import train_sae

    with listening(for_terminal()):
        folder = train_sae(config, str(place.root))
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
    return [*lines, f"Next: `sae: {{path: {folder}}}` in a config, or keep `train`: it is not"
            " trained twice."]  # fmt: skip


def sparkline(values: list[float]) -> str:
    """Values as a row of bars, at most 60, the highest for the largest."""
    if not values:
        return ""
    step = max(1, -(-len(values) // _MOST_BARS))
    parts = [max(values[first : first + step]) for first in range(0, len(values), step)]
    top = max(parts) or 1.0
    return "".join(_BARS[min(7, int(8 * value / top))] for value in parts)
