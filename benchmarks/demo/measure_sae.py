r"""Measure the demo SAE on held-out rows, and keep the figures beside its weights.

    python -m benchmarks.demo.measure_sae --model MODEL --sae SAE --pool pool.parquet

FVU, L0, share of dead latents, and loss recovered, each as `selection.sae.quality` and
`benchmarks.demo.loss_recovered` define it, on the content tokens (no BOS, no role tokens) of the
rows that the language model was not trained on. The hookpoint is the SAE's own.
"""

import argparse
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from benchmarks.demo.batches import Encoded, encode_rows, length_batches, pad_batch
from benchmarks.demo.corpus import read_corpus
from benchmarks.demo.dense import reading
from benchmarks.demo.loss_recovered import TokenBatch, spliced_loss
from selection.core.errors import InputError
from selection.models.hookpoints import hookpoint_of
from selection.sae.coder import SparseCoder
from selection.sae.formats.load import load_sae
from selection.sae.metadata import RECORD
from selection.sae.quality import measure
from storage.files.atomic import read_json, write_json

BATCH_TOKENS = 2048


def token_batches(
    encoded: Encoded, tokenizer: PreTrainedTokenizerFast, batch_tokens: int = BATCH_TOKENS
) -> Iterator[TokenBatch]:
    """Rows as they are shown in the first epoch, by length; special tokens do not count."""
    special = torch.tensor(sorted(tokenizer.all_special_ids))
    ids = encoded.epoch_ids(0)
    lengths = np.asarray([len(row) for row in ids])
    for rows in length_batches(lengths, np.arange(len(ids)), batch_tokens):
        inputs, _ = pad_batch(ids, rows, tokenizer.pad_token_id)
        real = torch.arange(inputs.shape[1]) < torch.from_numpy(lengths[rows])[:, None]
        yield TokenBatch(inputs, real, real & ~torch.isin(inputs, special))


@torch.no_grad()
def quality(coder: SparseCoder, model_folder: Path, pool: Path, block: int) -> dict[str, float]:
    """Figures on the held-out rows, rounded as they are shown."""
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    held_out = encode_rows(
        read_corpus(pool).validation, tokenizer, model.config.max_position_embeddings
    )
    batches = list(token_batches(held_out, tokenizer))
    with reading(model, [block]) as seen:
        states = []
        for batch in batches:
            model.model(batch.ids, use_cache=False)
            states.append(seen[block][batch.counted])
    measured = measure(coder, states)
    spliced = spliced_loss(model, model.model.layers[block], coder, batches)
    return {
        "held_out_tokens": measured.n_tokens,
        "fvu": round(measured.fvu or 0.0, 4),  # an autoencoder has one
        "l0": round(measured.l0, 2),
        "dead_share": round(measured.dead_share, 4),
        **{name: round(value, 4) for name, value in spliced.as_record().items()},
    }


def main() -> None:
    """Read the arguments, measure, keep the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--sae", type=Path, required=True, help="its folder, or one above")
    parser.add_argument("--pool", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(arguments.threads)
    coder = load_sae(arguments.sae)
    hookpoint = hookpoint_of(coder.info.hookpoint)
    if hookpoint is None:
        raise InputError("the SAE names no block", file=arguments.sae, remedy="Name its hookpoint.")
    file = Path(coder.info.path) / RECORD
    record = read_json(file)
    record["quality"] = quality(coder, arguments.model, arguments.pool, hookpoint.block)
    write_json(file, record)
    print(json.dumps(record["quality"]))


if __name__ == "__main__":
    main()
