"""Vectors of a labelled pool, once per setting: every aggregate from one forward pass, and words.

python -m benchmarks.spaces.vectors --pool P --targets T --subpool S --out DIR
Writes `DIR/<setting>-<space>.npz`; what is there is not computed again.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.spaces.data import SETTINGS, Labelled, load
from flows.stages.reading import DEMO_SAES
from selection.activations import iter_activations, load_activation_model
from selection.aggregate import (
    FloatRows,
    TokenAggregate,
    aggregate_tokens,
    calibrate_unit,
    in_order,
    quantize,
)
from selection.models import parse_hookpoint, resolve_model
from selection.records import Rendered, SparseRows
from selection.rendering import load_renderer
from selection.sae.encode import encode
from selection.sae.formats import load_sae

AGGREGATES: tuple[TokenAggregate, ...] = ("mean", "max", "sum")
MAX_LENGTH = 256
DEMO_MODEL = DEMO_SAES.parent / "model"


def main() -> None:
    """Compute and store what is missing."""
    parser = argparse.ArgumentParser(description="vectors of a labelled pool")
    for name in ("pool", "targets", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--subpool", type=Path)
    parser.add_argument("--model", default=str(DEMO_MODEL))
    parser.add_argument("--sae", default=str(DEMO_SAES))
    parser.add_argument("--setting", choices=SETTINGS, action="append")
    parser.add_argument("--counted", default="all")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    labelled = load(arguments.pool, arguments.targets, arguments.subpool)
    for setting in arguments.setting or SETTINGS:
        embed(labelled, setting, arguments)


def embed(labelled: Labelled, setting: str, arguments: argparse.Namespace) -> None:
    """One forward pass over rows and exemplars of a setting."""
    tag = setting if arguments.counted == "all" else f"{setting}-{arguments.counted}"
    files = {how: arguments.out / f"{tag}-{how}.npz" for how in AGGREGATES}
    if all(file.exists() for file in files.values()):
        return
    rows, exemplars = labelled.messages(setting)
    renderer = load_renderer(arguments.model, counted=arguments.counted, max_length=MAX_LENGTH)
    rendered = renderer.render_batch([(messages, None) for messages in rows + exemplars])
    save_tokens(arguments.out / f"{tag}-rendered.npz", rendered)
    found = forward(rendered, arguments.model, arguments.sae)
    for how, file in files.items():
        vectors, report = quantize(found[how], calibrate_unit(found[how]))
        print(setting, how, len(vectors.values) / len(vectors), report.mass_changed_share)
        save_rows(file, vectors)


def forward(samples: list[Rendered], model_path: str, sae: str) -> dict[str, FloatRows]:
    """Aggregate -> float vectors of all samples."""
    resolved, coder = resolve_model(model_path), load_sae(sae)
    hookpoint = parse_hookpoint(coder.info.hookpoint or "", resolved.n_layers)
    model = load_activation_model(resolved, hookpoint, threads=1)
    places: list[NDArray[np.int64]] = []
    parts: dict[str, list[FloatRows]] = {how: [] for how in AGGREGATES}
    with torch.no_grad():
        for batch in iter_activations(model, samples, None):
            latents = encode(coder, batch.hidden)
            acts, indices = latents.top_acts.numpy(), latents.top_indices.to(torch.int32).numpy()
            places.append(batch.rows)
            for how in AGGREGATES:
                parts[how].append(
                    aggregate_tokens(
                        acts, indices, batch.sample_of_token, len(batch.rows),
                        len(coder.encoder_bias), how,
                    )
                )  # fmt: skip
    width = len(coder.encoder_bias)
    return {how: in_order(parts[how], places, len(samples), width) for how in AGGREGATES}


def save_tokens(file: Path, rendered: list[Rendered]) -> None:
    """Counted token ids of every sample."""
    tokens = [sample.tokens[sample.counted] for sample in rendered]
    ends = np.cumsum([0, *map(len, tokens)])
    np.savez(file, tokens=np.concatenate(tokens), ends=ends)


def save_rows(file: Path, rows: SparseRows) -> None:
    """One .npz per matrix."""
    np.savez(
        file, indptr=rows.indptr, latents=rows.latents, values=rows.values, width=rows.n_latents
    )


def load_rows(file: Path) -> SparseRows:
    """What `save_rows` wrote."""
    with np.load(file) as arrays:
        return SparseRows(
            arrays["indptr"], arrays["latents"], arrays["values"], int(arrays["width"])
        )


if __name__ == "__main__":
    main()
