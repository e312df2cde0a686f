r"""Describe the latents of the demo SAE on the demo pool, beside its weights.

    python -m benchmarks.demo.describe_latents --model MODEL --sae SAE

Writes `latents.parquet` into the folder of the SAE: per latent its density, its top tokens with
their lift, its strongest examples, and a line that the catalog shows as a hint. The hookpoint is
the SAE's own. Only texts of the demo pool, which this project wrote itself, are quoted.
"""

import argparse
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch

from selection.activations.model import load_activation_model
from selection.core.hashing import canonical_json, file_sha256
from selection.models.hookpoints import parse_hookpoint
from selection.models.resolve import resolve_model
from selection.rendering.renderer import load_renderer
from selection.sae.compatibility import check_fits
from selection.sae.formats.load import load_sae
from selection.sae.interpret.describe import description_rows, profile_latents
from selection.sae.interpret.latents_file import FILE, write_latents
from storage.files.atomic import write_atomically

LOGGER = logging.getLogger(__name__)
DEMO = Path(__file__).parents[2] / "flows" / "demo"
MAX_LENGTH = 512  # tokens, as in the preset `demo`
N_EXAMPLES = 2  # three would make the file larger than 600 kB


def read_samples(pool: Path) -> dict[str, dict[str, Any]]:
    """Own id -> row of every distinct sample, in file order."""
    by_content: dict[str, dict[str, Any]] = {}
    for line in pool.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        by_content.setdefault(canonical_json([row["messages"], row.get("tools")]), row)
    return {row["id"]: row for row in by_content.values()}


def describe(model: Path, sae: Path, pool: Path, *, threads: int) -> Path:
    """Profile the latents and write their file; returns it."""
    coder, resolved = load_sae(sae), resolve_model(model)
    hookpoint = parse_hookpoint(str(coder.info.hookpoint), resolved.n_layers)
    check_fits(coder.info, resolved, hookpoint)
    renderer = load_renderer(resolved.path, max_length=MAX_LENGTH)
    rows = read_samples(pool)
    samples = renderer.render_batch([(row["messages"], row.get("tools")) for row in rows.values()])
    profile, _ = profile_latents(
        samples,
        load_activation_model(resolved, hookpoint, device="cpu", threads=threads),
        coder,
        tokens_per_batch=8192,
        n_examples=N_EXAMPLES,
    )
    described = description_rows(profile, samples, list(rows), renderer)
    about = {
        "sae_sha256": coder.info.sha256,
        "model_sha256": resolved.weights_sha256,
        "hookpoint": str(hookpoint),
        "pool_sha256": file_sha256(pool),
        "n_samples": len(samples),
        "n_tokens": profile.n_tokens,
        "n_latents": coder.info.num_latents,
    }
    file = Path(coder.info.path) / FILE
    write_atomically(file, lambda temp: write_latents(temp, described, about))
    silent = int(np.sum(profile.density == 0))
    LOGGER.info("%s: %d latents described, %d never fired", file, len(described), silent)
    return file


def main() -> None:
    """Read the arguments, write the file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=DEMO / "model")
    parser.add_argument("--sae", type=Path, default=DEMO / "sae", help="its folder, or one above")
    parser.add_argument("--pool", type=Path, default=DEMO / "pool.jsonl")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(arguments.threads)
    file = describe(arguments.model, arguments.sae, arguments.pool, threads=arguments.threads)
    print(file, file.stat().st_size)


if __name__ == "__main__":
    main()
