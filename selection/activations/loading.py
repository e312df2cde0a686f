"""Builds a model only up to the block that is read: deeper weights are never loaded."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

from selection.core.errors import InputError
from selection.models.resolve import ResolvedModel
from selection.models.weights import check_depth

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


_NOT_LOADED = (
    OSError,
    RuntimeError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    UnpicklingError,
    SafetensorError,
    StrictDataclassError,
)
"""What is raised while weights are read that are damaged, or of a kind that is not known."""


def find_device(device: str) -> torch.device:
    """Device by name; raises InputError if it cannot be used here."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        where = torch.device(device)
        torch.empty(0, device=where)
    except (RuntimeError, AssertionError) as error:  # torch raises either, by kind of mistake.
        raise InputError(
            "this device cannot be used here",
            remedy="Use auto or cpu; for cuda install a torch build with CUDA and its driver.",
            field="device",
            value=device,
        ) from error
    return where


@contextmanager
def fitting(what: str, field: str) -> Iterator[None]:
    """Inside, weights move to a device; raises InputError where they do not fit.

    what: a few words that name the weights; field: the config key that chose them.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise InputError(
            f"the device has too little memory for the weights of {what}",
            remedy="Use a smaller one, `model: {dtype: bfloat16}`, or a device with more memory.",
            field=field,
        ) from error


def refuse_encoder(resolved: ResolvedModel, field: str, remedy: str) -> None:
    """Raise InputError for a model that predicts no next token. field: what named the model."""
    if resolved.kind != "causal":
        raise InputError(
            "only a causal language model can be trained on responses; this one is an encoder",
            file=resolved.path,
            field=field,
            value=resolved.name,
            remedy=remedy,
        )


KINDS_OF_TRUE_DEPTH = ("minicpm", "gemma3n", "gemma4")
"""Starts of model types whose blocks know how many there are: scales of the residual stream, keys
and values of earlier blocks, embeddings of each block. They are loaded whole, then cut."""


def load_config(resolved: ResolvedModel, n_blocks: int | None = None) -> Any:
    """The model's config; with as many blocks as are needed, settings per block included."""
    from transformers import AutoConfig

    with _explained(resolved.path):
        config = AutoConfig.from_pretrained(
            resolved.path,
            trust_remote_code=resolved.trust_remote_code,
            local_files_only=True,
            **_gguf(resolved),
        )
    if n_blocks is None:
        return config
    text = config.get_text_config()
    for name, value in list(vars(text).items()):
        if isinstance(value, list) and len(value) == resolved.n_layers:
            setattr(text, name, value[:n_blocks])  # e.g. layer_types
    if "num_hidden_layers" in vars(text) or not hasattr(text, "layers_block_type"):
        text.num_hidden_layers = n_blocks  # else it is the number of kinds of blocks
    return config


def load_module(
    resolved: ResolvedModel,
    config: Any,
    dtype: torch.dtype,
    attention: str | None = None,
    with_head: bool = False,
) -> torch.nn.Module:
    """Load the weights that the config asks for; raises InputError if some are not there.

    attention: the attention function's name in transformers; None leaves the choice to it, but for
               models that cap their attention scores: up to 5.16 it took one that does not.
    with_head: a causal language model with what predicts its next token, not only its blocks.
    """
    from transformers import AutoModel, AutoModelForCausalLM

    kind = AutoModelForCausalLM if with_head else AutoModel
    if attention is None and getattr(config.get_text_config(), "attn_logit_softcapping", None):
        attention = "eager"
    chosen = {"attn_implementation": attention} if attention else {}
    with _quiet_transformers(), _explained(resolved.path):
        module, report = kind.from_pretrained(
            resolved.path,
            config=config,
            dtype=dtype,
            trust_remote_code=resolved.trust_remote_code,
            local_files_only=True,
            output_loading_info=True,
            **chosen,
            **_gguf(resolved),
        )
    # A pooler comes after the last block, and checkpoints of language models have none.
    missing = sorted(key for key in report["missing_keys"] if not key.startswith("pooler."))
    if missing or report["mismatched_keys"]:
        raise InputError(
            "weights are missing or do not have the shape that config.json says",
            remedy="Download the model again, or save it with transformers.",
            file=resolved.path,
            value=missing or sorted(str(key) for key in report["mismatched_keys"]),
        )
    text = config.get_text_config()
    if (resolved.path / "pytorch_model.bin").is_file():  # what a pickle holds is known only here
        check_depth(report["unexpected_keys"], text.to_dict(), resolved.n_layers, resolved.path)
    if text is not config and not with_head:  # The language part of a model with pictures.
        module = module.get_decoder()
    return module


def _gguf(resolved: ResolvedModel) -> dict[str, str]:
    return {"gguf_file": resolved.gguf_file} if resolved.gguf_file else {}


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Inside, what transformers raises for weights that it cannot load becomes an InputError."""
    try:
        yield
    except (torch.OutOfMemoryError, InputError):
        raise
    except ImportError as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise InputError(
            f"transformers cannot load this model: a package does not load ({str(cause)[:200]})",
            file=folder,
            remedy="Install the package again, of a build that fits your torch, or remove it.",
        ) from error
    except _NOT_LOADED as error:
        first = next(filter(None, str(error).splitlines()), type(error).__name__)
        is_new = "does not recognize this architecture" in str(error)
        raise InputError(
            f"transformers cannot load this model ({first[:200]})",
            file=folder,
            remedy="Use a newer version of transformers, or another model."
            if is_new
            else "Download it again, or save it with transformers.",
        ) from error


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Without the progress bar and the table of the blocks that were left out on purpose."""
    from transformers.utils import logging as hf_logging

    verbosity, has_bar = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        hf_logging.set_verbosity(verbosity)
        if has_bar:
            hf_logging.enable_progress_bar()


def find_blocks(module: torch.nn.Module, n_blocks: int) -> torch.nn.ModuleList:
    """The stack of blocks: of all lists of that length the one with most parameters.

    Lists inside blocks (experts) are smaller than the stack that holds them.
    """
    stacks = [
        part
        for part in module.modules()
        if isinstance(part, torch.nn.ModuleList) and len(part) == n_blocks
    ]
    if not stacks:
        raise InputError(
            "this model has no list of blocks that could be read",
            remedy="Use a model with one stack of blocks, such as Llama, Qwen, Gemma or GPT.",
            value=type(module).__name__,
        )
    return max(stacks, key=lambda stack: sum(weight.numel() for weight in stack.parameters()))
