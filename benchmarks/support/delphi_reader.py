r"""Whether delphi's own reader finds in a cache of `saelect describe --delphi` what it holds.

    python benchmarks/support/delphi_reader.py CACHE \\
        --latents workspace/saes/described/<id>/latents.parquet

Runs in an environment of its own, which needs no GPU and nothing of saelect:

    python -m venv delphi-env && . delphi-env/bin/activate
    pip install --no-deps eai-delphi==0.1.3
    pip install torch numpy "transformers<5" safetensors pyarrow
    pip install simple_parsing jaxtyping asyncer orjson blobfile

Libraries that delphi imports and its reader does not use are replaced by empty modules. Every
latent is read with LatentDataset and held to a plain reading of the files (each window where it is
active is an example with its tokens and activations; the silent examples are of other windows) and
to what saelect described (how often it fired, and its largest activation). Delphi 0.1.3 has a
window spelled token by token, which transformers 5 no longer does: highlights would be lost.
"""

import argparse
import json
import sys
import types
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file

STUBS = {"faiss": (), "sentence_transformers": ("SentenceTransformer",), "sparsify": ("Sae",)}
Example = tuple[tuple[int, ...], tuple[float, ...]]
"""Tokens and activations of a window."""


def main() -> None:
    """Compare, and print what was compared; ends with code 1 where something differs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("cache", type=Path)
    parser.add_argument("--latents", type=Path, help="what `saelect describe` wrote beside it")
    options = parser.parse_args()
    [folder] = options.cache.iterdir()
    window = json.loads((folder / "config.json").read_text())["example_ctx_len"]
    windows, active = written(folder, window)
    described = {} if options.latents is None else described_latents(options.latents)
    counts = {"latents": 0, "examples": 0, "silent": 0, "activations": 0, "different": 0}
    for record in records(options.cache, window):
        own = active.pop(record.latent.latent_index)
        counts["latents"] += 1
        counts["examples"] += len(record.examples)
        counts["silent"] += len(record.not_active)
        counts["activations"] += sum(int((each.activations > 0).sum()) for each in record.examples)
        same = sorted(map(example, record.examples)) == sorted(
            (windows[at], tuple(row.tolist())) for at, row in own.items()
        )
        silent = {windows[at] for at in set(range(len(windows))) - set(own)}
        same &= {tuple(each.tokens.tolist()) for each in record.not_active} <= silent
        same &= all(len(each.str_tokens) == window for each in [*record.train, *record.not_active])
        if described:
            n_fired, largest = described.pop(record.latent.latent_index)
            same &= sum(int((row > 0).sum()) for row in own.values()) == n_fired
            same &= bool(np.isclose(record.max_activation, largest, rtol=1e-3))
        counts["different"] += not same
    counts["missing"] = len(active) + len(described)
    for name, count in counts.items():
        print(f"{name:<12} {count:>12,}")
    print(json.dumps(counts))
    sys.exit(bool(counts["different"] or counts["missing"]))


def records(cache: Path, window: int) -> Any:
    """Every latent as delphi's explainers and scorers are given it."""
    import transformers  # noqa: F401 - before the stubs: it looks for a real faiss

    for name, parts in STUBS.items():
        stub = types.ModuleType(name)
        for part in parts:
            setattr(stub, part, type(part, (), {}))
        sys.modules.setdefault(name, stub)
    from delphi.config import ConstructorConfig, SamplerConfig
    from delphi.latents.loader import LatentDataset

    examples = ConstructorConfig(example_ctx_len=window, min_examples=1)
    return LatentDataset(cache, SamplerConfig(), examples)  # the tokenizer is config.json's


def written(
    folder: Path, window: int
) -> tuple[list[tuple[int, ...]], dict[int, dict[int, NDArray[np.float16]]]]:
    """Tokens of every window; activations (window,) of each latent in each where it is active."""
    active: defaultdict[int, dict[int, NDArray[np.float16]]] = defaultdict(dict)
    windows: list[tuple[int, ...]] = []
    for file in folder.glob("*.safetensors"):
        held, first = load_file(file), int(file.stem.split("_")[0])
        length = held["tokens"].shape[1]
        windows = [tuple(each) for each in held["tokens"].reshape(-1, window).tolist()]
        acts = held["activations"]
        for (row, position, latent), act in zip(held["locations"].tolist(), acts, strict=True):
            at, offset = divmod(row * length + position, window)
            of_latent = active[latent + first]
            of_latent.setdefault(at, np.zeros(window, np.float16))[offset] = act
    return windows, dict(active)


def described_latents(file: Path) -> dict[int, tuple[int, float]]:
    """Times each latent fired, and its largest activation."""
    about = json.loads(pq.read_schema(file).metadata[b"saelect"])
    rows = pq.read_table(file, columns=["latent", "density", "max_act"]).to_pylist()
    return {
        row["latent"]: (round(row["density"] * about["n_tokens"]), row["max_act"]) for row in rows
    }


def example(read: Any) -> Example:
    """One of delphi's examples."""
    activations: torch.Tensor = read.activations
    return tuple(read.tokens.tolist()), tuple(activations.tolist())


if __name__ == "__main__":
    main()
