"""LoRA adapters of peft: which they are, whether they are whole, what they add to which weight.

They are merged here, not by peft: that is a product of two matrices, and with a dependency more the
same folder would be another model where it is installed. Other kinds are refused by name.
"""

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selection.core.errors import InputError
from selection.core.json_text import parsed
from selection.models.weights import check_file

if TYPE_CHECKING:
    from torch import Tensor

CONFIG = "adapter_config.json"
_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
_REFUSED = {
    "use_dora": "DoRA scales the merged weights anew",
    "lora_bias": "its matrices have biases",
    "target_parameters": "it changes parameters that are no matrices of modules",
    "trainable_token_indices": "it trains single tokens",
    "alora_invocation_tokens": "it is active behind certain tokens alone",
    "use_qalora": "it is made for quantised weights",
}
_CHANGES_THE_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
_LORA = re.compile(r"^(?:base_model\.model\.)?(.+)\.lora_(?:embedding_)?([AB])(?:\.weight)?$")


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter whose files are on this machine.

    path:   its folder. config: as peft wrote it. weights: its file. sha256: of both.
    """

    path: Path
    config: Mapping[str, Any]
    weights: Path
    sha256: str

    def scale(self, module: str) -> float:
        """Factor of the product of the matrices of a module."""
        rank, alpha = (
            next(
                (
                    value
                    for key, value in (self.config.get(f"{name}_pattern") or {}).items()
                    if re.match(rf"(.*\.)?({key})$", module)
                ),
                self.config.get(default, 8),
            )
            for name, default in (("rank", "r"), ("alpha", "lora_alpha"))
        )
        return float(alpha) / (math.sqrt(rank) if self.config.get("use_rslora") else rank)


def read_adapter(folder: Path, hash_file: Callable[[Path], str]) -> Adapter:
    """The adapter of a folder, its weights unread. Raises InputError for what is not merged."""
    config_file = folder / CONFIG
    try:
        config = parsed(config_file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _refused(folder, "there is no adapter_config.json", None) from None
    except ValueError:
        raise _refused(config_file, "the adapter's config is no JSON", None) from None
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        kind = config.get("peft_type") if isinstance(config, dict) else None
        raise _refused(config_file, "only LoRA adapters are merged", "peft_type", kind)
    for key, reason in _REFUSED.items():
        if config.get(key):
            raise _refused(config_file, f"this LoRA is not merged: {reason}", key, config[key])
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.startswith(_CHANGES_THE_BASE):
        raise _refused(
            config_file,
            "this start of a LoRA changes the base model too",
            "init_lora_weights",
            start,
        )
    if config.get("bias", "none") != "none":
        raise _refused(
            config_file, "an adapter that trains biases is not merged", "bias", config["bias"]
        )
    numbers = [config.get("r", 8), config.get("lora_alpha", 8)]
    numbers += [*(config.get("rank_pattern") or {}).values()]
    numbers += [*(config.get("alpha_pattern") or {}).values()]
    if not all(isinstance(n, int | float) and n > 0 for n in numbers):
        raise _refused(config_file, "expected numbers above 0", "r", numbers)
    weights = next((folder / name for name in _WEIGHTS if (folder / name).is_file()), None)
    if weights is None:
        raise _refused(folder, "the adapter's weights are missing", None, _WEIGHTS[0])
    check_file(weights)
    settings = json.dumps(config, sort_keys=True)
    sha256 = hashlib.sha256(f"{settings}{hash_file(weights)}".encode()).hexdigest()
    return Adapter(folder, config, weights, sha256)


def merge(adapter: Adapter, module: Any, n_blocks: int) -> int:
    """Add an adapter to a model that was loaded, in float32; returns how many weights it changed.

    n_blocks: blocks of the model that are there. What belongs to deeper ones, or to the head that
    predicts tokens, is left out. Raises InputError for weights that find no place in the model.
    """
    import torch

    n_merged = 0
    for name, kind, tensors in _changes(adapter):
        part = _part_of(module, name)
        if part is not None:
            with torch.no_grad():
                part.weight.copy_(_merged(part, tensors, kind, adapter, name))
            n_merged += 1
        elif not _is_cut_off(name, n_blocks):
            raise _refused(adapter.weights, "the model has no such module", name)
    if n_merged == 0:
        raise _refused(adapter.weights, "it changes nothing up to the hookpoint", None)
    return n_merged


def _merged(
    part: Any, tensors: Mapping[str, "Tensor"], kind: str, adapter: Adapter, name: str
) -> "Tensor":
    """The new weight of a part of the model, float32."""
    weight = part.weight.float()
    if kind == "saved":
        new = tensors["weight"].float()
    else:
        new = (tensors["B"].float() @ tensors["A"].float()) * adapter.scale(name)
        # Embeddings and GPT-2's layers hold their weights the other way round.
        new = new.T if kind == "embedding" or type(part).__name__ == "Conv1D" else new
    if new.shape != weight.shape:
        raise _refused(
            adapter.weights,
            f"the model's weight has the shape {list(weight.shape)}, the adapter's"
            f" {list(new.shape)}",
            name,
        )
    new = new.to(weight.device)
    return new if kind == "saved" else weight + new


def _changes(adapter: Adapter) -> Iterator[tuple[str, str, dict[str, "Tensor"]]]:
    """(module, kind, tensors): the two matrices of "lora" or "embedding", or a "saved" weight."""
    matrices: dict[str, dict[str, Tensor]] = {}
    kinds: dict[str, str] = {}
    for key, tensor in _read(adapter).items():
        match = _LORA.match(key)
        if match:
            matrices.setdefault(match[1], {})[match[2]] = tensor
            kinds[match[1]] = "embedding" if "lora_embedding_" in key else "lora"
            continue
        saved = re.match(r"^(?:base_model\.model\.)?(.+?)(?:\.base_layer)?\.weight$", key)
        if saved is None:
            raise _refused(adapter.weights, "this tensor is not known", key)
        yield saved[1], "saved", {"weight": tensor}
    for name, pair in matrices.items():
        if pair.keys() != {"A", "B"}:
            raise _refused(adapter.weights, "one of the two matrices is missing", name)
        yield name, kinds[name], pair


def _read(adapter: Adapter) -> dict[str, "Tensor"]:
    import pickle

    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if adapter.weights.suffix == ".safetensors":
            return dict(load_file(adapter.weights))
        loaded = torch.load(adapter.weights, map_location="cpu", weights_only=True)
    except (
        OSError,
        RuntimeError,
        EOFError,
        ValueError,
        SafetensorError,
        pickle.UnpicklingError,
    ) as error:
        first = str(error).splitlines()[:1]
        raise _refused(adapter.weights, f"the weights cannot be read ({first})", None) from None
    if not isinstance(loaded, dict) or not all(hasattr(t, "shape") for t in loaded.values()):
        raise _refused(adapter.weights, "expected a dict of tensors", None)
    return loaded


def _part_of(module: Any, name: str) -> Any:
    """The part that the adapter names, perhaps from a model around ours; None for none."""
    parts = name.split(".")
    for start in range(len(parts)):
        part = module
        for step in parts[start:]:
            part = getattr(part, step, None)
        if part is not None and getattr(part, "weight", None) is not None:
            return part
    return None


def _is_cut_off(name: str, n_blocks: int) -> bool:
    """Whether a module is behind the hookpoint: a deeper block, or the head."""
    number = re.search(r"\.(\d+)\.", f".{name}.")
    if number is not None:
        return int(number[1]) >= n_blocks
    return name.rsplit(".", 1)[-1] in ("lm_head", "embed_out", "score", "classifier")


def _refused(file: Path, problem: str, field: str | None, value: object = None) -> InputError:
    return InputError(
        problem,
        file=file,
        field=field,
        value=value,
        remedy="Merge it with peft (`merge_and_unload`), save the model and give that folder.",
    )
