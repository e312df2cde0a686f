r"""Put the trained demo model into the package, with a card made from what was measured.

    python -m benchmarks.demo.card --state training/lm --pool pool.parquet \
        --evaluation evaluation.json --output flows/demo/model --block 4 --sae flows/demo/sae

Every figure of the card is read from the run's files; without `--evaluation` it says
that nothing was measured, without `--sae` that section is left out.
"""

import argparse
import filecmp
import hashlib
import json
import math
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

from benchmarks.demo.batches import encode_rows
from benchmarks.demo.card_text import (
    EVALUATION,
    EVALUATION_TABLE,
    INTRO,
    LIMITS,
    LOSS_RECOVERED,
    NOT_EVALUATED,
    SAE,
)
from benchmarks.demo.checkpoint import LOG_NAME, STATE_NAME
from benchmarks.demo.corpus import VALIDATION_MODULUS, Corpus, read_corpus
from benchmarks.demo.muon import ADAMW_LR, MUON_LR, WEIGHT_DECAY
from benchmarks.demo.tried_recipes import read_recipes, recipes_text
from selection.evaluation.metrics import DEPTH

CURVE_ROWS = 10
EVALUATION_COLUMNS = ("T1", "T2", "all", "T1 unseen", "T2 unseen")
WEIGHTS = "model.safetensors"


def same_bytes(one: Path, other: Path) -> bool:
    """Whether both files are there and equal."""
    return other.is_file() and filecmp.cmp(one, other, shallow=False)


def publish(source: Path, output: Path) -> None:
    """Copy model and tokenizer files; those that are there already are left alone."""
    output.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.iterdir()):
        if not same_bytes(path, output / path.name):
            shutil.copyfile(path, output / path.name)


def read_curve(state: Path) -> list[dict[str, Any]]:
    """Log records that carry a held-out loss, in order of steps."""
    lines = (state / LOG_NAME).read_text().splitlines()
    return [record for record in map(json.loads, lines) if "validation_loss" in record]


def curve_rows(curve: list[dict[str, Any]]) -> str:
    """About ten evenly spread lines of the loss curve, the last one included."""
    stride = max(len(curve) // CURVE_ROWS, 1)
    shown = curve[-1::-stride][::-1]
    return "\n".join(
        f"| {r['step']:,} | {r['tokens']:,} | {r['seconds'] / 60:.1f}"
        f" | {r['validation_loss']:.3f} |"
        for r in shown
    )


def held_out_size(corpus: Corpus, model: Path, context: int) -> tuple[int, float]:
    """Predicted tokens of the held-out rows as they are shown, and their mean bytes a token."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    ids = encode_rows(corpus.validation, tokenizer, context).epoch_ids(0)
    texts = tokenizer.batch_decode([row.tolist() for row in ids], skip_special_tokens=True)
    n_tokens = sum(len(row) - 1 for row in ids)
    return n_tokens, sum(len(text.encode()) for text in texts) / n_tokens


def evaluation_text(path: Path | None, block: int) -> str:
    """The section on retrieval, the hookpoint's row in bold; says so where nothing was measured."""
    if path is None:
        return NOT_EVALUATED.format(block=block)
    measured = json.loads(path.read_text())
    tables = [
        table_text(measured[rows][setting], setting, rows, measured[rows]["n_rows"], block)
        for rows in ("subpool", "pool")
        for setting in ("instance", "full")
        if setting in measured.get(rows, {})
    ]
    return EVALUATION.format(
        n_t1=measured["n_targets"]["T1"],
        n_t2=measured["n_targets"]["T2"],
        dtype=measured["settings"]["dtype"],
        max_tokens=measured["settings"]["max_tokens"],
        tables="\n".join(tables),
    )


def table_text(measured: dict[str, Any], setting: str, rows: str, n_rows: int, block: int) -> str:
    """One setting on some rows: a line a method, then what the pairs that decide differ by."""
    lines = []
    for name, figures in measured["methods"].items():
        cells = [f"{figures[column]['mean']:.3f}" for column in EVALUATION_COLUMNS]
        if name == f"dense mean, block {block}":
            name, cells = f"**{name}**", [f"**{cell}**" for cell in cells]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    gaps = []
    for pair, gap in measured["differences"].items():
        shown = "; ".join(
            f"{kind} {gap[kind]['mean']:+.3f} [{gap[kind]['lo']:+.3f}, {gap[kind]['hi']:+.3f}]"
            for kind in ("T1", "T2", "all")
        )
        gaps.append(f"- {pair}: {shown}; loses {', '.join(gap['lost']) or 'no target'}")
    where = "the sub-pool" if rows == "subpool" else "the whole pool"
    return EVALUATION_TABLE.format(
        setting=setting,
        where=where,
        n_rows=n_rows,
        cutoff_share=min(DEPTH / n_rows, 1.0),
        lines="\n".join(lines),
        gaps="\n".join(gaps),
    )


def sae_text(folder: Path, block: int) -> str:
    """The section on the sparse autoencoder, from the record beside its weights."""
    record = json.loads((folder / f"layers.{block}" / "saelect.json").read_text())
    training, quality = record["training"], record["quality"]
    recovered = quality.get("ce_loss_score")
    return SAE.format(
        recovered="" if recovered is None else LOSS_RECOVERED.format(**quality),
        block=block,
        latents=training["settings"]["num_latents"],
        k=training["settings"]["k"],
        tokens=training["n_tokens"],
        held_out_tokens=int(quality["held_out_tokens"]),
        fvu=quality["fvu"],
        l0=quality["l0"],
        dead=quality["dead_share"],
    )


def training_text(state: Path, pool: Path, model: Path, block: int) -> str:
    """The sections on data and recipe, from the run's state and loss curve."""
    corpus = read_corpus(pool)
    settings = torch.load(state / STATE_NAME, weights_only=True)["settings"]
    curve = read_curve(state)
    last = curve[-1]
    n_parameters = sum(tensor.numel() for tensor in load_file(model / WEIGHTS).values())
    n_tokens, bytes_per_token = held_out_size(corpus, model, settings["context"])
    budget = f"{settings['tokens']:,} tokens"
    if settings["minutes"]:
        budget += f" or {settings['minutes']:.0f} minutes, whichever came first"
    return INTRO.format(
        **settings,
        block=block,
        parameters=n_parameters / 1e6,
        n_pool=corpus.n_pool,
        n_permissive=corpus.n_permissive,
        n_used=len(corpus.train) + len(corpus.validation),
        n_validation=len(corpus.validation),
        modulus=VALIDATION_MODULUS,
        licenses="\n".join(f"| {k} | {n:,} |" for k, n in corpus.license_counts.items()),
        muon_lr=MUON_LR,
        adamw_lr=ADAMW_LR,
        weight_decay=WEIGHT_DECAY,
        step_tokens=settings["batch_tokens"] * settings["batches_per_step"],
        used_tokens=last["tokens"],
        steps=last["step"],
        epoch=last["epoch"] + 1,
        used_minutes=last["seconds"] / 60,
        budget=budget,
        curve=curve_rows(curve),
        held_out_tokens=n_tokens,
        bytes_per_token=bytes_per_token,
        bits_per_byte=last["validation_loss"] / math.log(2) / bytes_per_token,
    )


def main() -> None:
    """Read the arguments, copy the model, write its card."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--state", type=Path, required=True, help="folder of the training run")
    parser.add_argument("--pool", type=Path, required=True)
    parser.add_argument("--evaluation", type=Path, help="output of benchmarks.demo_model")
    parser.add_argument("--output", type=Path, required=True, help="folder of the packaged model")
    parser.add_argument("--block", type=int, required=True, help="0-based block of the hookpoint")
    parser.add_argument("--sae", type=Path, help="folder that holds layers.B")
    arguments = parser.parse_args()
    publish(arguments.state / "model", arguments.output)
    sha256 = hashlib.sha256((arguments.output / WEIGHTS).read_bytes()).hexdigest()
    parts = [
        training_text(arguments.state, arguments.pool, arguments.output, arguments.block),
        recipes_text(read_recipes()),
        evaluation_text(arguments.evaluation, arguments.block),
        sae_text(arguments.sae, arguments.block) if arguments.sae else "",
        LIMITS.format(weights=WEIGHTS, sha256=sha256),
    ]
    (arguments.output / "README.md").write_text("".join(parts))


if __name__ == "__main__":
    main()
