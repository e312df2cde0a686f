"""The demo model: a small Llama, its recipe and its loss."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from benchmarks.demo.batches import IGNORED, Encoded, length_batches, pad_batch


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights; `minutes` 0 means that tokens alone end the run."""

    vocab_size: int = 4096
    d_model: int = 256
    d_mlp: int = 768
    n_layers: int = 6
    n_heads: int = 4
    context: int = 512
    tokens: int = 8_000_000
    minutes: float = 0.0
    batch_tokens: int = 3072
    batches_per_step: int = 2
    warmup_steps: int = 40
    decay_from: float = 0.3
    seed: int = 0


def build_model(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A Llama whose block outputs start at zero, in fp32."""
    torch.manual_seed(recipe.seed)
    config = LlamaConfig(
        vocab_size=recipe.vocab_size,
        hidden_size=recipe.d_model,
        intermediate_size=recipe.d_mlp,
        num_hidden_layers=recipe.n_layers,
        num_attention_heads=recipe.n_heads,
        num_key_value_heads=recipe.n_heads,
        max_position_embeddings=recipe.context,
        tie_word_embeddings=True,
        attn_implementation="eager",
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    for block in model.model.layers:
        nn.init.zeros_(block.self_attn.o_proj.weight)
        nn.init.zeros_(block.mlp.down_proj.weight)
    return model


def token_loss(model: LlamaForCausalLM, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Summed next-token cross-entropy in nats; matrix products in bf16, softmax in fp32."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = model.model(inputs, use_cache=False).last_hidden_state
        wanted = labels != IGNORED
        logits = model.lm_head(hidden[wanted])
    return F.cross_entropy(logits.float(), labels[wanted], reduction="sum")


@torch.no_grad()
def validation_loss(
    model: LlamaForCausalLM, encoded: Encoded, pad_id: int, batch_tokens: int
) -> float:
    """Mean loss per token over held-out rows, shown once, half of them with instruction."""
    ids = encoded.epoch_ids(0)
    lengths = np.asarray([len(row) for row in ids])
    total, n_tokens = 0.0, 0
    for rows in length_batches(lengths, np.arange(len(ids)), batch_tokens):
        inputs, labels = pad_batch(ids, rows, pad_id)
        total += float(token_loss(model, inputs, labels))
        n_tokens += int((labels != IGNORED).sum())
    return total / n_tokens
