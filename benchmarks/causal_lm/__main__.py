r"""Prepare a real causal language model, keep its activations once, and train SAEs on them.

    python -m benchmarks.causal_lm (--gguf FILE | --model FOLDER) --pool POOL --workspace DIR \
        [--tokens 1000000] [--blocks 10 15 20] [--sae ARCHITECTURE:LATENTS:K ...]

Writes DIR/model (of a GGUF file), DIR/activations, DIR/saes/<name>/layers.<block> and, in
DIR/saes.json, FVU, L0, dead share and loss recovered on held-out text. A killed run goes on where
it was. The last line is the JSON of all SAEs. `saelect bench retrieval --model DIR/model --sae ...`
then measures them.
"""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from benchmarks.causal_lm.activations import KeptActivations, activations_of, samples_of
from benchmarks.causal_lm.prepare import prepare_model
from benchmarks.demo.loss_recovered import TokenBatch, spliced_loss
from selection.activations.capture import INPUTS, part_of
from selection.activations.loading import find_blocks
from selection.evaluation.labelled import read_labelled_pool
from selection.models.hookpoints import Hookpoint, canonical
from selection.models.resolve import ResolvedModel, resolve_model
from selection.records import Rendered
from selection.rendering.renderer import renderer_for
from selection.sae.coder import SparseCoder
from selection.sae.formats.load import load_sae
from selection.sae.formats.save import save_trained
from selection.sae.quality import measure
from selection.sae.training.settings import TrainSettings
from selection.sae.training.train import train_sae
from storage.files.atomic import read_json, write_json

LOSS_SAMPLES = 48


def main() -> None:
    """Read the arguments, do what is missing, print the figures."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    folder = arguments.workspace / "model"
    if arguments.gguf is not None:
        prepare_model(arguments.gguf, folder)
    model = resolve_model(arguments.model or folder)
    renderer = renderer_for(model, max_length=arguments.max_length)
    pool = read_labelled_pool(arguments.pool)
    hookpoints = tuple(Hookpoint("resid", block) for block in arguments.blocks)
    kept = activations_of(
        arguments.workspace,
        hookpoints,
        model,
        arguments.dtype,
        pool,
        renderer,
        arguments.tokens,
    )
    file = arguments.workspace / "saes.json"
    results: dict[str, Any] = dict(read_json(file)) if file.exists() else {}
    for text in arguments.sae:
        settings = settings_of(text, arguments.train_tokens)
        for hookpoint in hookpoints:
            name = f"{text.replace(':', '-')}/layers.{hookpoint.block}"
            if name in results:
                continue
            coder = trained(arguments.workspace / "saes" / name, kept, hookpoint, settings, model)
            held_out = samples_of(pool, renderer, kept.numbers(held_out=True)[0])[:LOSS_SAMPLES]
            results[name] = figures(coder, kept, hookpoint, model, held_out)
            write_json(file, results)
            print(name, json.dumps(results[name]), flush=True)
    print(json.dumps(results))


def settings_of(text: str, tokens: int) -> TrainSettings:
    """The settings that `architecture:latents:k` stands for."""
    architecture, latents, k = text.split(":")
    given = {"architecture": architecture, "num_latents": int(latents), "k": int(k)}
    return TrainSettings.model_validate({**given, "tokens": tokens})


def trained(
    folder: Path,
    kept: KeptActivations,
    hookpoint: Hookpoint,
    settings: TrainSettings,
    model: ResolvedModel,
) -> SparseCoder:
    """The SAE of a folder; trained where it is missing, from its checkpoint where there is one."""
    if not folder.exists():
        started = time.perf_counter()
        coder, report = train_sae(
            kept.batches(hookpoint, settings.batch_tokens, settings.seed),
            settings,
            checkpoint=folder.with_name(f"{folder.name}.pt"),
            checkpoint_every=50,
        )
        name = canonical(str(hookpoint)) or str(hookpoint)
        coder = coder.trained_on(model.name, model.weights_sha256, name)
        record = {"training": {**report.as_record(), "wall_s": time.perf_counter() - started}}
        save_trained(coder, folder, record)
    return load_sae(folder)


def figures(
    coder: SparseCoder,
    kept: KeptActivations,
    hookpoint: Hookpoint,
    model: ResolvedModel,
    samples: list[Rendered],
) -> dict[str, float]:
    """FVU, L0 and dead share on the held-out chunks; loss recovered on samples.

    Without FVU and loss where the SAE does not reconstruct what it reads.
    """
    quality = measure(coder, kept.chunks(hookpoint, held_out=True))
    result = {
        "held_out_tokens": quality.n_tokens,
        "l0": round(quality.l0, 2),
        "dead_share": round(quality.dead_share, 4),
    }
    if quality.fvu is None:
        return result
    whole = AutoModelForCausalLM.from_pretrained(model.path, dtype=torch.float32).eval()
    part = part_of(find_blocks(whole, model.n_layers)[hookpoint.block], hookpoint.site)
    of_input = hookpoint.site in INPUTS
    spliced = spliced_loss(whole, part, coder, _batches(samples), of_input=of_input)
    losses = {name: round(value, 4) for name, value in spliced.as_record().items()}
    return {"fvu": round(quality.fvu, 4), **result, **losses}


def _batches(samples: list[Rendered]) -> Iterator[TokenBatch]:
    """One sample at a time: nothing is padded."""
    for sample in samples:
        ids = torch.from_numpy(sample.tokens.astype(np.int64))[None]
        counted = torch.from_numpy(sample.content_mask)[None]
        yield TokenBatch(ids, torch.ones_like(counted), counted)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--gguf", type=Path, help="quantised model, one file")
    source.add_argument("--model", type=Path, help="model folder of transformers")
    parser.add_argument("--pool", type=Path, required=True, help="labelled pool, Parquet")
    parser.add_argument("--workspace", type=Path, required=True, help="gets all results")
    parser.add_argument("--tokens", type=int, default=1_000_000, help="activations to keep")
    parser.add_argument("--train-tokens", type=int, default=2_000_000, help="repeats allowed")
    parser.add_argument("--blocks", type=int, nargs="+", default=[10, 15, 20])
    parser.add_argument("--sae", nargs="+", default=["topk:8192:32"], metavar="KIND:LATENTS:K")
    parser.add_argument("--max-length", type=int, default=256)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    main()
