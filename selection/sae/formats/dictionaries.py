"""Formats of dictionary_learning: folders of its trainers, and what it pushes to the hub."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selection.core.errors import InputError
from selection.sae.formats.layout import Checkpoint, Layout, Names
from selection.sae.formats.libraries import refuse_unset_threshold
from selection.sae.metadata import SaeInfo, read_object

if TYPE_CHECKING:
    from selection.sae.formats.weight_files import Weights

_LINEAR = ("encoder.weight", "encoder.bias", "decoder.weight")
_MATRICES = Names("W_enc", "b_enc", "W_dec", "b_dec", transposed=("w_enc",))
_DICTIONARIES = {
    "AutoEncoder": ("relu", Names(*_LINEAR, "bias", transposed=("w_dec",))),
    "AutoEncoderNew": ("relu", Names(*_LINEAR, "decoder.bias", transposed=("w_dec",))),
    "AutoEncoderTopK": ("topk", Names(*_LINEAR, "b_dec", transposed=("w_dec",))),
    "BatchTopKSAE": ("jumprelu", Names(*_LINEAR, "b_dec", transposed=("w_dec",))),
    "MatryoshkaBatchTopKSAE": ("jumprelu", _MATRICES),
    "GatedAutoEncoder": (
        "gated",
        Names(
            "encoder.weight",
            "gate_bias",
            "decoder.weight",
            "decoder_bias",
            transposed=("w_dec",),
            magnitudes=("r_mag", "mag_bias"),
        ),
    ),
    "JumpReluAutoEncoder": ("jumprelu", _MATRICES),
}
"""Class that wrote the SAE -> how its latents are selected, and its tensors."""
_SITES = {
    "resid_post": "layers.{}",
    "resid_out": "layers.{}",
    "mlp_out": "mlp_module@{}",
    "attn_out": "attn_module@{}",
}


def _dictionary(sae: Checkpoint) -> Mapping[str, Any]:
    """The class named in the configuration decides; its input norm is folded before the save."""
    trainer, buffer = (sae.config.get(name) or {} for name in ("trainer", "buffer"))
    for name, section in (("trainer", trainer), ("buffer", buffer)):
        if not isinstance(section, dict):
            raise sae.refuse("expected a mapping", name)
    kind = str(trainer.get("dict_class") or "")
    if kind not in _DICTIONARIES:
        raise sae.refuse(
            f"this class is not read (known: {', '.join(_DICTIONARIES)})",
            "trainer.dict_class",
            kind or None,
        )
    if buffer.get("io") in ("in", "in_and_out"):
        raise sae.refuse("it reads a module's input", "buffer.io", buffer["io"])
    d_in, n_latents = (trainer.get(key) for key in ("activation_dim", "dict_size"))
    if type(d_in) is not int or type(n_latents) is not int:
        raise sae.refuse("expected activation_dim and dict_size", "trainer", sorted(trainer))
    fixed = kind == "AutoEncoderTopK"
    k, layer = trainer.get("k"), trainer.get("layer")
    # Without a name, the folder may say it (`resid_out_layer3/10_32768`); else the user must.
    read = str(trainer.get("submodule_name") or "/".join(sae.path.absolute().parts[-2:]))
    site = next((s for s in _SITES if s in read), None)
    return {
        "hookpoint": _SITES[site].format(layer) if site and isinstance(layer, int) else None,
        "d_in": d_in,
        "num_latents": n_latents,
        "k": k,
        "activation": _DICTIONARIES[kind][0],
        "model_name": str(trainer["lm_name"]) if trainer.get("lm_name") else None,
        "centers": kind not in ("AutoEncoderNew", "JumpReluAutoEncoder"),
        "declared_l0": float(k) if isinstance(k, int | float) and not fixed else None,
        "positions": f"context {buffer['ctx_len']}" if buffer.get("ctx_len") else None,
    }


def _convert_dictionary(sae: Checkpoint, info: SaeInfo, weights: "Weights") -> None:
    refuse_unset_threshold(sae, info, weights)
    if info.activation == "relu":
        # Both classes give features in units of unit decoder rows: the first when it loads, the
        # second when it puts features out.
        weights.fold_decoder_norms()


def _dictionary_class(sae: Checkpoint) -> str:
    """The class, asked for when weights are read. Raises InputError for a training's state."""
    if isinstance(sae.contents.get("ae"), Mapping):
        raise sae.refuse(
            "this is a checkpoint from the middle of a training, whose weights do"
            " not fit activations as they come",
            weights=True,
        )
    return str(sae.config["trainer"]["dict_class"])


DICTIONARY_LEARNING = Layout(
    name="dictionary_learning",
    title="dictionary_learning",
    files=("config.json", "ae.pt"),
    loads=", ".join(_DICTIONARIES),
    refuses="checkpoints from the middle of a training, thresholds never set, cross-coders",
    oracle="dictionary-learning 0.1.0",
    names={name: names for name, (_, names) in _DICTIONARIES.items()},
    variant=_dictionary_class,
    k_key="trainer.k",
    facts=_dictionary,
    convert=_convert_dictionary,
)


_HUB_CLASSES = {
    "AutoEncoder": {"bias", "encoder.weight", "encoder.bias", "decoder.weight"},
    "AutoEncoderNew": {"encoder.weight", "encoder.bias", "decoder.weight", "decoder.bias"},
    "BatchTopKSAE": {"b_dec", "encoder.weight", "encoder.bias", "decoder.weight", "threshold"},
}
"""Class -> its tensors, `k` aside; the hub's mixin does not write the class."""


def _is_hub_folder(folder: Path) -> bool:
    """A model's folder has the same two files, and another configuration."""
    try:
        config = read_object(folder / "config.json")
    except InputError:
        return False
    return {"activation_dim", "dict_size"} <= config.keys()


def _hub_class(sae: Checkpoint) -> str:
    """The class whose tensors are there. Raises InputError."""
    tensors = {*sae.header} - {"k"}
    for name, its_tensors in _HUB_CLASSES.items():
        if tensors == its_tensors:
            return name
    if {"encoder.weight", "decoder.weight"} <= tensors and len(
        sae.header["encoder.weight"][0]
    ) == 3:
        raise sae.refuse(
            "this is a crosscoder: its latents are of several models at once", weights=True
        )
    raise sae.refuse(
        f"its class is not known by its tensors (known: {', '.join(_HUB_CLASSES)}); gated and"
        " jumprelu classes scale latents in one version of the library and not in another",
        weights=True,
        value=sorted(tensors),
    )


def _hub_dictionary(sae: Checkpoint) -> Mapping[str, Any]:
    """Neither model nor hookpoint are in the files."""
    kind, k = _hub_class(sae), sae.config.get("k")
    if sae.config.get("decoder_type", "linear") != "linear":
        raise sae.refuse("only a linear decoder is read", "decoder_type")
    return {
        "hookpoint": None,
        "d_in": sae.whole("activation_dim"),
        "num_latents": sae.whole("dict_size"),
        "activation": _DICTIONARIES[kind][0],
        "centers": kind != "AutoEncoderNew",
        "declared_l0": float(k) if isinstance(k, int | float) and k > 0 else None,
    }


DICTIONARY_HUB = Layout(
    name="dictionary_hub",
    title="dictionary_learning on the hub",
    files=("config.json", "model.safetensors"),
    loads=f"{', '.join(_HUB_CLASSES)}, as `push_to_hub` writes them; the hookpoint must be named",
    refuses="gated and jumprelu classes, thresholds never set, crosscoders",
    oracle="the definition, in float64",
    names={name: _DICTIONARIES[name][1] for name in _HUB_CLASSES},
    variant=_hub_class,
    marks=_is_hub_folder,
    facts=_hub_dictionary,
    convert=_convert_dictionary,
)
