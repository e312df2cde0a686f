"""Model, SAE, rendering, and how the computation is divided."""

import os
from typing import Literal

from pydantic import Field, model_validator

from flows.config.base import DEMO, Dtype, Strict
from selection.sae.training.settings import TrainSettings


class ModelConfig(Strict):
    """The model whose activations represent a sample."""

    name: str = Field(
        DEMO,
        description="Folder on the machine of the run, Hugging Face id, or `demo`, a small"
        " demonstration model: do not train on its selections.",
    )
    revision: str | None = Field(None, description="Branch, tag or commit on the hub.")
    adapter: str | None = Field(
        None, description="Folder or hub id of a LoRA adapter, merged into the model."
    )
    gguf_file: str | None = Field(
        None, description="GGUF file in the folder or repository, instead of other weights."
    )
    hookpoint: str = Field(
        "",
        description="Where the SAE reads the model: `resid@`, `mlp@`, `attn@`, or inside these"
        " `mlp_hidden@` or `heads@` (others: docs/reference/saes.md), and a block (4) or a relative"
        " depth (0.5); empty: where it was trained.",
    )
    dtype: Dtype = Field("auto", description="auto: float32 on CPU, bfloat16 on CUDA.")
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        "auto", description="auto: CUDA where there is a GPU, else the CPU."
    )
    trust_remote_code: bool = Field(False, description="Allow the model's repository to run code.")


class SaeConfig(Strict):
    """A sparse autoencoder: an existing one, or one to train."""

    path: str | None = Field(
        None,
        min_length=1,
        description="Folder, .pt file or hub id of a known format (docs/reference/saes.md), or"
        " `demo`, of the demonstration model.",
    )
    train: TrainSettings | None = None
    scale: Literal["as_saved", "decoder_norm"] = Field(
        "as_saved", description="decoder_norm: multiply values by the L2 norm of the decoder row."
    )
    check: Literal["auto", "warn", "refuse", "off"] = Field(
        "auto",
        description="What to do if L0 or FVU on a few thousand tokens differ from those declared;"
        " auto: refuse where a published L0 is missed by more than half or FVU is 10 or more, else"
        " warn.",
    )
    trust_model: bool = Field(
        False,
        description="Use the SAE on this model though it names another; noted in catalog and"
        " report. Width and blocks must fit all the same.",
    )

    @model_validator(mode="after")
    def one_of_two(self) -> "SaeConfig":
        """Refuse both and neither."""
        if (self.path is None) == (self.train is None):
            raise ValueError("give either `path` (an existing SAE) or `train` (settings), not both")
        return self


class RenderingConfig(Strict):
    """How an example becomes tokens, and which of them are content tokens."""

    template: str = Field("auto", description="auto (the tokenizer's), plain, or a Jinja file.")
    counted: Literal["all", "response", "prompt", "all_and_template", "every_token"] = Field(
        "all",
        description="Content tokens that are aggregated; all_and_template adds template tokens,"
        " every_token also BOS.",
    )
    max_length: int = Field(
        2048,
        ge=8,
        description="Tokens per example, template included; at most what the model allows.",
    )
    truncation: Literal["end", "start", "keep_response"] = Field(
        "end", description="Where a longer example is cut."
    )


class ComputeConfig(Strict):
    """How the computation is divided; changes no pick beyond float rounding."""

    threads: int | None = Field(None, ge=1, description="CPU threads; default: all cores.")
    tokens_per_batch: int | None = Field(
        None,
        ge=1,
        description="Tokens in one forward batch, padding included, a shared prefix once;"
        " default: what suits the device.",
    )
    packing: Literal["auto", "packed", "padded", "flex"] = Field(
        "auto",
        description="Samples end to end in a row, or padded; auto: packed on CPU. flex: packed by"
        " torch's flex attention, for GPUs; not measured.",
    )
    share_prefixes: bool = Field(
        True,
        description="Run a prefix that samples share once, where they are packed and the model is"
        " causal.",
    )
    task_runner: Literal["local", "ray"] = Field(
        "local", description="ray: units are tasks of the Ray cluster that the run is part of."
    )
    workers: int = Field(1, ge=1, description="Processes that compute vectors, one GPU each.")
    verify_shards: bool = Field(
        True, description="Check the hashes of stored vectors before ranking."
    )

    @property
    def plan_key(self) -> list[object]:
        """The keys that decide which samples share a batch, and so the last bits of floats."""
        return [self.tokens_per_batch, self.packing, self.share_prefixes]

    @property
    def n_threads(self) -> int:
        """`threads`, or as many as this process has cores."""
        if self.threads is not None:
            return self.threads
        if hasattr(os, "sched_getaffinity"):
            return len(os.sched_getaffinity(0))
        return os.cpu_count() or 1

    unit_examples: int = Field(2048, ge=1, description="Examples in one unit of resumable work.")
