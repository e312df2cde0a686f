"""SAEs of the ablation, trained with the recipe of the shipped one but for what each varies."""

import argparse
from pathlib import Path
from typing import Any

from benchmarks.ablation.cells import SAES
from benchmarks.demo.build_demo_sae import build
from selection.sae.formats.load import load_sae
from storage.files.workspace import file_name


def folder_of(saes: Path, name: str) -> Path:
    """Where an SAE of the ablation is."""
    return saes / file_name(name)


def train_missing(saes: Path, model: Path, shipped: Path, pool: Path) -> None:
    """Train what is not there yet; a killed training goes on at its last checkpoint."""
    training: Any = load_sae(shipped).info.record["training"]
    recipe = training["settings"]
    batch = training["n_tokens"] // training["n_steps"]
    for name, change in SAES.items():
        folder = folder_of(saes, name)
        block = change.get("block", 2)
        if (folder / f"layers.{block}").exists():
            continue
        build(
            argparse.Namespace(
                model=model,
                pool=pool,
                state=saes / "state" / file_name(name),
                output=folder,
                block=block,
                latents=change.get("latents", recipe["num_latents"]),
                k=change.get("k", recipe["k"]),
                tokens=training["n_tokens"],
                batch_tokens=batch,
                lr=recipe["lr"],
                warmup_steps=recipe["warmup_steps"],
                seed=change.get("seed", recipe["seed"]),
            )
        )
