r"""Keep what a finished training run showed: `recipes/NAME.json`, small enough to commit.

    python -m benchmarks.demo.record_recipe --state training/lm --pool pool.parquet \
        --evaluation evaluation.json --name 4x320-v8192 --remark "wins"

Losing recipes are kept too. Loss per token cannot be compared between vocabularies: bits per byte
of the held-out rows can.
"""

import argparse
import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from benchmarks.demo.card import held_out_size, read_curve
from benchmarks.demo.checkpoint import STATE_NAME
from benchmarks.demo.corpus import Corpus, read_corpus
from benchmarks.demo.model import Recipe
from benchmarks.demo.tried_recipes import FOLDER

RETRIEVAL_COLUMNS = ("T1", "T1 unseen", "T2", "T2 unseen")


def retrieval_of(evaluation: dict[str, Any]) -> dict[str, Any]:
    """Rows and mean nDCG@1000 of every representation: `benchmarks.demo_model`, shortened.

    Of the sub-pool in the instance setting where that was measured, else of all rows.
    """
    rows = "subpool" if "subpool" in evaluation else "pool"
    kept = {
        name: {column: figures[column]["mean"] for column in RETRIEVAL_COLUMNS}
        for name, figures in evaluation[rows]["instance"]["methods"].items()
    }
    return {"rows": rows, "n_rows": evaluation[rows]["n_rows"], "results": kept}


def record(state: Path, corpus: Corpus, evaluation: Path | None, remark: str) -> dict[str, Any]:
    """Settings, size, held-out curve and retrieval of a finished run."""
    saved = torch.load(state / STATE_NAME, weights_only=True)["settings"]
    settings = {**asdict(Recipe()), **saved}
    curve = read_curve(state)
    model = state / "model"
    n_tokens, bytes_per_token = held_out_size(corpus, model, settings["context"])
    tensors = load_file(model / "model.safetensors")
    last = curve[-1]
    return {
        "settings": settings,
        "parameters": sum(tensor.numel() for tensor in tensors.values()),
        "tokens": last["tokens"],
        "steps": last["step"],
        "epoch": last["epoch"] + 1,
        "minutes": round(last["seconds"] / 60, 1),
        "tokens_per_second": round(last["tokens"] / last["seconds"]),
        "held_out_tokens": n_tokens,
        "bytes_per_token": round(bytes_per_token, 3),
        "held_out_loss": round(last["validation_loss"], 4),
        "bits_per_byte": round(last["validation_loss"] / math.log(2) / bytes_per_token, 4),
        "curve": [
            [r["step"], r["tokens"], round(r["seconds"] / 60, 1), round(r["validation_loss"], 4)]
            for r in curve
        ],
        "retrieval": retrieval_of(json.loads(evaluation.read_text())) if evaluation else None,
        "remark": remark,
    }


def main() -> None:
    """Read the arguments, write the file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--state", type=Path, required=True, help="folder of the training run")
    parser.add_argument("--pool", type=Path, required=True)
    parser.add_argument("--evaluation", type=Path, help="output of benchmarks.demo_model")
    parser.add_argument("--name", required=True, help="name of the recipe's file")
    parser.add_argument("--remark", default="", help="a sentence on what it showed")
    arguments = parser.parse_args()
    corpus = read_corpus(arguments.pool)
    recorded = record(arguments.state, corpus, arguments.evaluation, arguments.remark)
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{arguments.name}.json"
    path.write_text(json.dumps(recorded, indent=1) + "\n")
    print(path)


if __name__ == "__main__":
    main()
