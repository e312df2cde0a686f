r"""Train the demo model's sparse autoencoder with the project's own trainer.

    python -m benchmarks.demo.build_demo_sae --model flows/demo/model \
        --pool pool.parquet --state training/sae --output flows/demo/sae --block 4

Activations are those of content tokens (no BOS, no role tokens) of the texts that the language
model was trained on, whole chats, shuffled over a buffer. Quality is measured on the held-out rows.
Weights are rounded to fp16 before quality is measured, so the figures are those of the files.
"""

import argparse
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.demo.batches import encode_rows, epoch_batches
from benchmarks.demo.corpus import read_corpus
from benchmarks.demo.dense import content_states
from benchmarks.demo.measure_sae import quality
from selection.models.resolve import resolve_model
from selection.sae.coder import SparseCoder, make_coder
from selection.sae.formats.libraries import SPARSIFY
from selection.sae.formats.save import save_sparsify
from selection.sae.training.settings import StepMetrics, TrainSettings
from selection.sae.training.train import shuffled, train_sae

LOGGER = logging.getLogger(__name__)
FORWARD_TOKENS = 4096
BUFFER_TOKENS = 131_072
LICENCE = "Apache-2.0"


class Activations:
    """The language model's outputs at one block, for training rows."""

    def __init__(self, model_folder: Path, pool: Path, block: int) -> None:
        """Load model and rows; nothing is computed yet."""
        self.block = block
        self.model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
        self.tokenizer = AutoTokenizer.from_pretrained(model_folder)
        corpus = read_corpus(pool)
        context = self.model.config.max_position_embeddings
        self.train = encode_rows(corpus.train, self.tokenizer, context)

    def stream(self, batch_tokens: int, seed: int) -> Iterator[torch.Tensor]:
        """Endless training batches (batch_tokens, d_model); a pure function of the seed."""
        return shuffled(self._endless(seed), batch_tokens, BUFFER_TOKENS, seed)

    def _endless(self, seed: int) -> Iterator[torch.Tensor]:
        for epoch in count():
            ids = self.train.epoch_ids(epoch)
            batches = epoch_batches(ids, epoch, seed, FORWARD_TOKENS)
            yield from content_states(self.model, self.tokenizer, ids, batches, self.block)


def as_half(coder: SparseCoder) -> SparseCoder:
    """The coder with every weight rounded to fp16, computed in fp32 as all coders are."""
    tensors = (coder.encoder_weight, coder.encoder_bias, coder.decoder_weight, coder.decoder_bias)
    return make_coder(*(tensor.half().float() for tensor in tensors), info=coder.info)


def save_half(coder: SparseCoder, folder: Path, record: dict[str, Any]) -> None:
    """Write a sparsify checkpoint whose weight file is fp16."""
    save_sparsify(coder, folder, record)
    tensors = {
        name: tensor.half() for name, tensor in load_file(folder / SPARSIFY.files[-1]).items()
    }
    temporary = folder / f"{SPARSIFY.files[-1]}.tmp"
    save_file(tensors, temporary)
    os.replace(temporary, folder / SPARSIFY.files[-1])


def build(arguments: argparse.Namespace) -> dict[str, Any]:
    """Train, round, measure and write; returns the record that is kept beside the weights."""
    activations = Activations(arguments.model, arguments.pool, arguments.block)
    resolved = resolve_model(arguments.model)
    arguments.state.mkdir(parents=True, exist_ok=True)

    def report(metrics: StepMetrics) -> None:
        if metrics.step % 50 == 0:
            LOGGER.info("%s", metrics)

    coder, outcome = train_sae(
        activations.stream(arguments.batch_tokens, arguments.seed),
        TrainSettings(
            num_latents=arguments.latents,
            k=arguments.k,
            tokens=arguments.tokens,
            batch_tokens=arguments.batch_tokens,
            learning_rate=arguments.lr,
            warmup_steps=arguments.warmup_steps,
            seed=arguments.seed,
        ),
        checkpoint=arguments.state / "sae.pt",
        on_step=report,
    )
    coder = coder.trained_on("demo", resolved.weights_sha256, f"layers.{arguments.block}")
    coder = as_half(replace(coder, info=replace(coder.info, licence=LICENCE)))
    measured = quality(coder, arguments.model, arguments.pool, arguments.block)
    record = {"training": outcome.as_record(), "quality": measured}
    save_half(coder, arguments.output / f"layers.{arguments.block}", record)
    return record


def main() -> None:
    """Read the arguments, train, print the record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--pool", type=Path, required=True)
    parser.add_argument("--state", type=Path, required=True, help="folder for the checkpoint")
    parser.add_argument("--output", type=Path, required=True, help="layers.B is made inside")
    parser.add_argument("--block", type=int, required=True, help="0-based block that is read")
    parser.add_argument("--latents", type=int, default=4096)
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=3_000_000)
    parser.add_argument("--batch-tokens", type=int, default=2048)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--warmup-steps", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(arguments.threads)
    print(json.dumps(build(arguments), indent=1))


if __name__ == "__main__":
    main()
