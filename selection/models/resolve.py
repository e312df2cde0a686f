"""Which model is meant, whether it can be read here, and where in it activations are read."""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from selection.core.errors import InputError
from selection.core.hashing import file_sha256
from selection.core.json_text import parsed
from selection.models.adapters import CONFIG as ADAPTER_CONFIG
from selection.models.adapters import Adapter, read_adapter
from selection.models.hub import TOKENIZER_FILES, fetch
from selection.models.weights import (
    check_depth,
    check_gguf,
    hash_weights,
    tensor_names,
    weight_files,
)

_WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
_OLD_WEIGHTS = ("pytorch_model*.bin", "pytorch_model.bin.index.json")
_CAUSAL = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
_ENCODER = ("ForMaskedLM", "ForPreTraining", "ForSequenceClassification", "ForTokenClassification")


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """A model whose files are on this machine.

    path:              folder with config.json, weights and usually the tokenizer.
    name:              as the user wrote it.
    revision:          commit of the hub repository; None for a folder of the user's.
    weights_sha256:    hash over the weight files; equal weights, equal hash.
    d_model:           width of the residual stream.
    n_layers:          number of blocks.
    max_positions:     longest input the model was made for, in tokens; None if it has no limit.
    kind:              "causal", or "encoder" where every token sees all others.
    licence:           as the model card says, or None.
    model_type:        of the language part, as transformers names it.
    adapter:           what is merged into the weights when they are loaded.
    gguf_file:         the file in the folder that holds the weights, for a model in GGUF.
    d_heads:           width of the attention heads' outputs side by side; None where not known.
    n_heads:           attention heads of a block; None where not known.
    d_mlp:             hidden units of the MLP of a block; None where the config leaves it open.
    trust_remote_code: whether code in the folder may be run.
    """

    path: Path
    name: str
    revision: str | None
    weights_sha256: str
    d_model: int
    n_layers: int
    max_positions: int | None
    kind: str
    licence: str | None
    trust_remote_code: bool = False
    model_type: str = ""
    d_heads: int | None = None
    d_mlp: int | None = None
    n_heads: int | None = None
    adapter: Adapter | None = None
    gguf_file: str | None = None


def resolve_model(
    name_or_path: str | Path,
    revision: str | None = None,
    trust_remote_code: bool = False,
    hash_file: Callable[[Path], str] = file_sha256,
    adapter: str | None = None,
    gguf_file: str | None = None,
) -> ResolvedModel:
    """Find a model's files, on this machine or on Hugging Face, and read its shape.

    hash_file: SHA-256 of a weight file; one that remembers spares reading large files again.
    adapter:   folder or hub name of a LoRA adapter; the model's hash is then that of both.
    gguf_file: name of a GGUF file in the folder or repository, read instead of other weights.
    Raises InputError, before any weight is read, if the model cannot be had or is of a kind that
    has no single stack of blocks.
    """
    name = str(name_or_path)
    patterns = [*TOKENIZER_FILES, *([gguf_file] if gguf_file else _WEIGHTS), "README.md"]
    if trust_remote_code:
        patterns.append("*.py")
    snapshot = fetch(name, revision, patterns)
    if snapshot.revision is not None and not gguf_file and not weight_files(snapshot.path):
        snapshot = fetch(name, snapshot.revision, [*patterns, *_OLD_WEIGHTS])
    if gguf_file:
        config, sha256 = _read_gguf(snapshot.path / gguf_file, hash_file)
    else:
        config = _read_config(snapshot.path)
        sha256 = hash_weights(snapshot.path, config, hash_file)
    merged = None
    if adapter is not None:
        files = fetch(adapter, None, [ADAPTER_CONFIG, "adapter_model.*"]).path
        merged = read_adapter(files, hash_file)
        sha256 = hashlib.sha256(f"{sha256}{merged.sha256}".encode()).hexdigest()
    text = _text_config(config)
    n_layers = _n_layers(text, snapshot.path)
    if not gguf_file:
        check_depth(tensor_names(snapshot.path), text, n_layers, snapshot.path)
    kind = _kind(config, snapshot.path, trust_remote_code)
    return ResolvedModel(
        path=snapshot.path,
        name=name,
        revision=snapshot.revision,
        weights_sha256=sha256,
        d_model=_size(text, snapshot.path, "hidden_size", "n_embd", "d_model", "dim"),
        n_layers=n_layers,
        max_positions=_max_positions(text),
        kind=kind,
        licence=_licence(snapshot.path),
        trust_remote_code=trust_remote_code,
        model_type=str(text.get("model_type") or config.get("model_type") or ""),
        d_heads=_d_heads(text),
        d_mlp=_d_mlp(text),
        n_heads=_n_heads(text),
        adapter=merged,
        gguf_file=gguf_file,
    )


def _read_gguf(file: Path, hash_file: Callable[[Path], str]) -> tuple[dict[str, Any], str]:
    """The configuration that a GGUF file holds, and the file's hash. Raises InputError."""
    check_gguf(file)
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(file.parent, gguf_file=file.name)
    except (OSError, ValueError, LookupError, TypeError, RuntimeError) as error:
        first = next(filter(None, str(error).splitlines()), type(error).__name__)
        raise InputError(
            f"transformers cannot read this GGUF file ({first[:160]})",
            file=file,
            remedy="Use the model's safetensors files, under its own name.",
        ) from error
    return dict(config.to_dict()), hash_file(file)


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        config = parsed(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        remedy = "Give the folder that holds config.json and the weights."
        if (folder / "adapter_config.json").is_file():
            remedy = "This is an adapter: give its base model as `name`, and this as `adapter`."
        raise InputError("there is no config.json", remedy=remedy, file=folder) from error
    except ValueError as error:
        raise InputError(
            f"the model's config is no JSON ({error})", remedy="Download it again.", file=path
        ) from error
    if not isinstance(config, dict):
        raise InputError(
            "the model's config is no JSON object", remedy="Download it again.", file=path
        )
    return config


def _text_config(config: dict[str, Any]) -> dict[str, Any]:
    """The config of the language part, where a model reads pictures too."""
    inner = config.get("text_config")
    return inner if isinstance(inner, dict) else config


def _kind(config: dict[str, Any], folder: Path, trust_remote_code: bool) -> str:
    """Causal or encoder; the architecture's name says so, else the model type does."""
    if _text_config(config).get("use_bidirectional_attention") in (True, "all"):
        return "encoder"  # EmbeddingGemma, whose architecture is called as a causal one
    kind = None if config.get("auto_map") else _kind_by_name(config)
    return kind or _kind_by_type(config, folder, trust_remote_code)


def _kind_by_name(config: dict[str, Any]) -> str | None:
    """What the architecture is called, where that says enough."""
    architectures = config.get("architectures")
    architecture = (
        str(architectures[0]) if isinstance(architectures, list) and architectures else ""
    )
    if config.get("is_encoder_decoder"):
        return None
    if architecture.endswith(_CAUSAL) or config.get("is_decoder"):
        return "causal"
    return "encoder" if architecture.endswith(_ENCODER) else None


def _kind_by_type(config: dict[str, Any], folder: Path, trust_remote_code: bool) -> str:
    """What transformers knows of the model type; asked last, for importing it takes a second."""
    from transformers.models.auto import modeling_auto

    model_type = str(config.get("model_type") or "")
    causal = modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    encoders = modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    if config.get("auto_map") and model_type not in causal and model_type not in encoders:
        if not trust_remote_code:
            raise InputError(
                "this model brings its own Python code, which is not run",
                remedy="Read the code, then set trust_remote_code: true.",
                file=folder / "config.json",
                field="auto_map",
            )
        return "causal"
    kind = _kind_by_name(config)
    if kind is None and not config.get("is_encoder_decoder"):
        kind = "encoder" if model_type in encoders else "causal" if model_type in causal else None
    if kind is not None:
        return kind
    raise InputError(
        "this is neither a causal language model nor an encoder",
        remedy="Use a model with one stack of blocks, such as Llama, Qwen, Gemma, GPT or BERT.",
        file=folder / "config.json",
        field="model_type",
        value=model_type,
    )


def _size(config: dict[str, Any], folder: Path, *names: str) -> int:
    """The first of these sizes that the config has; families name them differently."""
    for name in names:
        if isinstance(config.get(name), int) and config[name] > 0:
            return int(config[name])
    raise InputError(
        "the model's config does not say its size",
        remedy="Use a config.json as transformers saves it.",
        file=folder / "config.json",
        field=names[0],
    )


def _n_heads(config: dict[str, Any]) -> int | None:
    """Attention heads of a block; families name them differently."""
    names = ("num_attention_heads", "n_head", "n_heads")
    heads = next((config[name] for name in names if name in config), 0)
    return heads if isinstance(heads, int) and heads > 0 else None


def _d_heads(config: dict[str, Any]) -> int | None:
    """Heads times the width of one; families name both differently."""
    heads = _n_heads(config)
    width = next((config[n] for n in ("v_head_dim", "head_dim") if config.get(n)), 0)
    hidden = next((config[n] for n in ("hidden_size", "n_embd", "d_model") if n in config), 0)
    if heads is None or not isinstance(hidden, int):
        return None
    return heads * width if isinstance(width, int) and width else hidden or None


def _d_mlp(config: dict[str, Any]) -> int | None:
    """Hidden units of an MLP, where the config names one number that all blocks have."""
    if any(config.get(key) for key in _UNEVEN_MLPS):
        return None
    names = ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size")
    width = next((config[name] for name in names if config.get(name)), None)
    if width is None and isinstance(config.get("n_embd"), int):
        width = 4 * config["n_embd"]  # GPT-2 and its kin
    return width if isinstance(width, int) else None


_UNEVEN_MLPS = ("block_auto_adjust_ff_dim", "use_double_wide_mlp", "intermediate_size_mlp")
"""Keys of models (LFM 2, Gemma 4, Llama 4) whose MLPs are of other widths than the config's."""


def _n_layers(config: dict[str, Any], folder: Path) -> int:
    """Blocks; some hybrid models say only of what kind each is."""
    kinds = config.get("layers_block_type") or config.get("layer_types")
    if "num_hidden_layers" not in config and isinstance(kinds, list) and kinds:
        return len(kinds)
    n_layers = _size(config, folder, "num_hidden_layers", "n_layer", "n_layers", "num_layers")
    if n_layers > _MAX_LAYERS:
        raise InputError(
            "no model has so many blocks",
            file=folder / "config.json",
            field="num_hidden_layers",
            value=n_layers,
            remedy="The config is damaged: download the model again.",
        )
    return n_layers


_MAX_LAYERS = 10_000  # transformers makes a list of them before any weight is looked at


def _max_positions(config: dict[str, Any]) -> int | None:
    """Of a LongRoPE model those of its short regime: beyond it all positions are scaled anew."""
    rope = config.get("rope_scaling") or config.get("rope_parameters")
    if isinstance(rope, dict) and "longrope" in (rope.get("rope_type"), rope.get("type")):
        original = rope.get("original_max_position_embeddings")
        original = original or config.get("original_max_position_embeddings")
        if isinstance(original, int) and original > 0:
            return original
    for name in ("max_position_embeddings", "n_positions", "max_seq_len"):
        if isinstance(config.get(name), int) and config[name] > 0:
            # RoBERTa's position numbers start behind the padding id.
            offset = 2 if config.get("model_type") in _OFFSET_POSITIONS else 0
            return int(config[name]) - offset
    return None


_OFFSET_POSITIONS = ("roberta", "xlm-roberta", "camembert")


def _licence(folder: Path) -> str | None:
    """`license` in the header of the model card."""
    card = folder / "README.md"
    if not card.is_file():
        return None
    match = re.match(r"---\r?\n(.*?)\r?\n---", card.read_text(encoding="utf-8"), re.DOTALL)
    try:
        header = yaml.safe_load(match[1]) if match else None
    except yaml.YAMLError:
        return None
    if not isinstance(header, dict) or not header.get("license"):
        return None
    licence = header["license"]
    named = header.get("license_name")
    return str(named if licence == "other" and named else licence)
