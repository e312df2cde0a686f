"""`saelect describe`: what the latents of an SAE respond to, without a language model."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from flows.commands.terminal import one_line, say
from flows.config.file import load_vector_job
from flows.progress import for_terminal, listening
from selection.errors import InputError
from storage.delphi_cache import WINDOW
from storage.workspace import open_workspace

_SHOWN = 10


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
        raise InputError("is for a cache, and none is asked for", field="--delphi-window",
                         remedy="Name its folder with --delphi FOLDER.")  # fmt: skip
    config, place = load_vector_job(config_name), open_workspace(workspace)
    from flows.stages.describe import describe_latents

    with listening(for_terminal()):
        window = delphi_window or WINDOW
        file = describe_latents(config, place, n_samples, delphi, window, latents)
    if delphi is not None:
        length = delphi_window or WINDOW
        say(f"delphi's LatentDataset reads {delphi} with example_ctx_len={length}.\n")
    rows: list[dict[str, Any]] = pq.read_table(file).to_pylist()
    known = {row["latent"]: row for row in rows}
    missing = [latent for latent in latents if latent not in known]
    if missing:
        raise InputError("this latent fired on none of the samples", field="--latent",
                         value=missing[0], remedy="Read more of the pool (--samples).")  # fmt: skip
    leaning = sorted(rows, key=lambda row: -max((f["lift"] for f in row["facets"]), default=0.0))
    for row in [known[latent] for latent in latents] or leaning[:_SHOWN]:
        for line in lines_of(row):
            say(line)
    say(f"\n{len(rows):,} latents in {file}; the next run shows them in `saelect why` and reports.")
    say("These are hints, not explanations.")


def lines_of(row: Mapping[str, Any]) -> list[str]:
    """One latent for people."""
    lines = [f"latent {row['latent']}  on {row['density']:.2%} of tokens  {row['description']}"]
    for facet in row["facets"] or []:
        lines.append(
            f"    {facet['column']:<10} {facet['label']}: {facet['share']:.0%} of its samples,"
            f" {facet['lift']:.1f} times as many as in the pool"
        )
    if row["promotes"]:
        said, unsaid = (" ".join(repr(t) for t in row[n][:5]) for n in ("promotes", "suppresses"))
        lines.append(f"    lens       {one_line(said)} against {one_line(unsaid)}"
                     f" (kurtosis {row['kurtosis']:.1f})")  # fmt: skip
    return lines
