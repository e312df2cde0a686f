"""Formats of training libraries: sparsify, SAELens and dictionary_learning."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from selection.models.hookpoints import canonical, hookpoint_of, refuse_inputs
from selection.sae.formats.layout import Checkpoint, Choice, Layout, Names
from selection.sae.metadata import RECORD, SaeInfo, read_object

if TYPE_CHECKING:
    from selection.sae.formats.weight_files import Weights

_TRANSCODER = ("this is a transcoder: it reads a module's input, while saelect reads the output of"
               " a hookpoint")  # fmt: skip
_UNSET = "a threshold below 0 was never set: the training was too short"


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _refuse_unset_threshold(sae: Checkpoint, info: SaeInfo, weights: "Weights") -> None:
    if info.activation == "jumprelu" and bool((weights.extra["threshold"] < 0).any()):
        raise sae.refuse(_UNSET, "threshold", weights=True)


def _from_record(sae: Checkpoint) -> dict[str, Any]:
    """What saelect wrote beside an SAE that it trained."""
    record = sae.beside(RECORD)
    known = {"record": record, "model_sha256": _text(record.get("model_sha256")),
             "model_name": _text(record.get("model")), "licence": _text(record.get("licence")),
             "hookpoint": _text(record.get("hookpoint"))}  # fmt: skip
    return {name: value for name, value in known.items() if value}


def _sparsify(sae: Checkpoint) -> Mapping[str, Any]:
    """The module's name is the folder's; the model stands in the run's config.json above it."""
    config, folder = sae.config, sae.path
    d_in, n_latents = sae.whole("d_in"), config.get("num_latents", 0)
    if n_latents == 0:  # in this format 0 means: expansion_factor times the width
        n_latents = d_in * sae.whole("expansion_factor")
    if type(n_latents) is not int or n_latents < 0:
        raise sae.refuse("expected a whole number, 0 or more", "num_latents")
    k = sae.whole("k")
    if config.get("activation", "topk") == "groupmax" and n_latents % k:
        raise sae.refuse(f"expected a divisor of the number of latents, {n_latents}", "k")
    parsed = hookpoint_of(folder.name)
    named = folder.name if parsed and parsed.site == "resid" else canonical(folder.name)
    run_file = folder.parent / "config.json"
    run = read_object(run_file) if parsed and run_file.is_file() else {}
    dtype = sae.header.get("encoder.weight", ((), ""))[1]
    return {
        "hookpoint": named if parsed else None,
        "d_in": d_in,
        "num_latents": n_latents,
        "dtype": {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}.get(dtype, dtype),
        "model_name": _text(run.get("model")),
        **_from_record(sae),
    }


SPARSIFY = Layout(
    name="sparsify",
    title="sparsify (EleutherAI)",
    files=("cfg.json", "sae.safetensors"),
    loads="topk, groupmax",
    refuses="transcoders, skip connections, signed latents",
    oracle="eai-sparsify 1.3.3",
    # `normalize_decoder` is a rule of training: the stored decoder is used as it is.
    names={"": Names("encoder.weight", "encoder.bias", "W_dec", "b_dec")},
    activation=Choice("activation", {"topk": "topk", "groupmax": "groupmax"},
                      "expected topk or groupmax", "topk"),
    refused={"transcode": _TRANSCODER, "skip_connection": _TRANSCODER,
             "signed": "expected false: latents must not be negative"},
    facts=_sparsify,
)  # fmt: skip


def _modern_saelens(config: dict[str, Any]) -> dict[str, Any]:
    """A version-6 config of any version's: flat keys become metadata, old names new ones."""
    for old, new in (
        ("hook_point", "hook_name"),
        ("hook_point_head_index", "hook_head_index"),
        ("activation_fn_str", "activation_fn"),
    ):
        if old in config:
            config.setdefault(new, config.pop(old))
    config.setdefault("architecture", "standard")
    kwargs = config.get("activation_fn_kwargs")
    if config.get("activation_fn") == "topk" and isinstance(kwargs, Mapping) and kwargs.get("k"):
        config["architecture"], config["k"] = "topk", kwargs["k"]
    norm = config.get("normalize_activations")
    if isinstance(norm, bool):
        norm = "expected_average_only_in" if norm else "none"
    config["normalize_activations"] = norm or "none"
    meta = config.get("metadata")
    flat = {key: value for key, value in config.items() if key != "metadata"}
    config["metadata"] = {**flat, **(meta if isinstance(meta, Mapping) else {})}
    return config


def _saelens(sae: Checkpoint) -> Mapping[str, Any]:
    config, meta = sae.config, sae.config["metadata"]
    architecture, hook = str(config["architecture"]), str(meta.get("hook_name") or "")
    if config.get("d_out") not in (None, config.get("d_in")):
        raise sae.refuse(_TRANSCODER, "architecture")
    if architecture == "standard" and config.get("activation_fn", "relu") not in ("relu", None):
        raise sae.refuse("only relu is read here", "activation_fn")
    if config.get("reshape_activations", "none") != "none" or hook.endswith("hook_z"):
        raise sae.refuse("this SAE reads the attention heads' outputs side by side (hook_z), not"
                           " the output of a module", "hook_name", hook)  # fmt: skip
    refuse_inputs(hook, sae.config_file, "hook_name")
    kwargs = meta.get("model_from_pretrained_kwargs")
    if isinstance(kwargs, Mapping) and kwargs.get("center_writing_weights"):
        raise sae.refuse(
            "it was trained on a model with centered writing weights, whose activations are others",
            "model_from_pretrained_kwargs",
            dict(kwargs),
        )
    l0, own = meta.get("l0"), _from_record(sae)
    facts = {
        "centers": bool(config.get("apply_b_dec_to_input", True)),
        "declared_l0": float(l0) if isinstance(l0, int | float) and l0 > 0 else None,
        "positions": _saelens_positions(meta),
        "model_name": str(meta["model_name"]) if meta.get("model_name") else None,
        "hookpoint": canonical(hook) if hook else None,
        **own,
    }
    release = _RELEASES.get(sae.source)
    if release == "centered":
        raise sae.refuse(
            f"the SAEs of {sae.source} are for a model with centered writing weights,"
            " whose activations are others"
        )
    if release == "sqrt_d":
        facts["input_norm"] = release
    if architecture == "abstopk":
        facts["num_latents"] = 2 * sae.sizes[1]
    return facts


_RELEASES: dict[str, str | dict[str, float]] = {
    "jbloom/GPT2-Small-SAEs-Reformatted": "centered",
    "jbloom/GPT2-Small-Feature-Splitting-Experiment-Layer-8": "centered",
    "tommmcgrath/gpt2-small-mlp-out-saes": "centered",
    "JoshEngels/Mistral-7B-Residual-Stream-SAEs": "sqrt_d",
    "jbloom/Gemma-2b-Residual-Stream-SAEs": {
        "gemma_2b_blocks.12.hook_resid_post_16384": 0.21381938399317255
    },
}
"""What SAELens' own table of releases says of them and no configuration does: a model with centered
writing weights, a norm of the input, or by folder a factor on activations that is not folded."""


def _saelens_positions(meta: Mapping[str, Any]) -> str | None:
    """Which tokens it was trained on, as far as the config says."""
    parts = []
    if "prepend_bos" in meta:
        parts.append("BOS prepended" if meta["prepend_bos"] else "no BOS")
    if meta.get("exclude_special_tokens"):
        parts.append("special tokens left out")
    if meta.get("context_size"):
        parts.append(f"context {meta['context_size']}")
    return ", ".join(parts) or None


def _convert_saelens(sae: Checkpoint, info: SaeInfo, weights: "Weights") -> None:
    factor = sae.contents.get("scaling_factor")
    if factor is not None and not bool((factor == 1).all()):
        raise sae.refuse("a fine-tuned scaling factor is not read", "scaling_factor",
                           weights=True)  # fmt: skip
    _refuse_unset_threshold(sae, info, weights)
    release = _RELEASES.get(sae.source)
    if isinstance(release, dict) and sae.path.name in release:
        weights.scale_input(release[sae.path.name])
    if sae.config.get("rescale_acts_by_decoder_norm") and info.activation == "topk":
        weights.fold_decoder_norms()
    if sae.config["architecture"] == "abstopk":
        weights.add_negatives()


_SAELENS_NAMES = Names("W_enc", "b_enc", "W_dec", "b_dec", transposed=("w_enc",))
_FACTOR = "a scaling factor that is not folded into the weights is not read"
SAELENS = Layout(
    name="saelens",
    title="SAELens",
    files=("cfg.json", "sae_weights.safetensors"),
    loads="standard, topk (also rescaled), abstopk, jumprelu (so batchtopk, matryoshka), gated; v6"
    " and older flat configs; layer norm and constant norm",
    refuses="transcoders, matching pursuit, temporal, hook_z, unfolded norm factors,"
    " centered writing weights",
    oracle="sae-lens 6.54.12",
    names={"": _SAELENS_NAMES,
           "gated": Names("W_enc", "b_gate", "W_dec", "b_dec", transposed=("w_enc",),
                          magnitudes=("r_mag", "b_mag"))},
    variant=lambda sae: "gated" if sae.config["architecture"] == "gated" else "",
    modern=_modern_saelens,
    # BatchTopK and Matryoshka SAEs are saved as jumprelu with a constant threshold.
    activation=Choice(
        "architecture",
        {"standard": "relu", "topk": "topk", "abstopk": "topk", "jumprelu": "jumprelu",
         "gated": "gated"},
        "this architecture is not read (known: standard, topk, abstopk, jumprelu, gated)",
        because=dict.fromkeys(("transcoder", "skip_transcoder", "jumprelu_transcoder",
                               "jumprelu_skip_transcoder"), _TRANSCODER),
    ),
    # The last two are folded into the weights when training ends, and never applied afterwards.
    input_norm=Choice(
        "normalize_activations",
        {"none": "none", "layer_norm": "layer_norm", "constant_norm_rescale": "sqrt_d",
         "expected_average_only_in": "none", "covariance_whitening": "none"},
        "this input norm is not known",
    ),
    refused=dict.fromkeys(("finetuning_scaling_factor", "scaling_factor", "norm_scaling_factor"),
                          _FACTOR),
    facts=_saelens,
    convert=_convert_saelens,
)  # fmt: skip


_LINEAR = ("encoder.weight", "encoder.bias", "decoder.weight")
_MATRICES = Names("W_enc", "b_enc", "W_dec", "b_dec", transposed=("w_enc",))
_DICTIONARIES = {
    "AutoEncoder": ("relu", Names(*_LINEAR, "bias", transposed=("w_dec",))),
    "AutoEncoderNew": ("relu", Names(*_LINEAR, "decoder.bias", transposed=("w_dec",))),
    "AutoEncoderTopK": ("topk", Names(*_LINEAR, "b_dec", transposed=("w_dec",))),
    "BatchTopKSAE": ("jumprelu", Names(*_LINEAR, "b_dec", transposed=("w_dec",))),
    "MatryoshkaBatchTopKSAE": ("jumprelu", _MATRICES),
    "GatedAutoEncoder": ("gated", Names("encoder.weight", "gate_bias", "decoder.weight",
                                        "decoder_bias", transposed=("w_dec",),
                                        magnitudes=("r_mag", "mag_bias"))),
    "JumpReluAutoEncoder": ("jumprelu", _MATRICES),
}  # fmt: skip
"""Class that wrote the SAE -> how its latents are selected, and its tensors."""
_SITES = {"resid_post": "layers.{}", "mlp_out": "mlp_module@{}", "attn_out": "attn_module@{}"}


def _dictionary(sae: Checkpoint) -> Mapping[str, Any]:
    """The class named in the configuration decides; its input norm is folded before the save."""
    trainer, buffer = (sae.config.get(name) or {} for name in ("trainer", "buffer"))
    for name, section in (("trainer", trainer), ("buffer", buffer)):
        if not isinstance(section, dict):
            raise sae.refuse("expected a mapping", name)
    kind = str(trainer.get("dict_class") or "")
    if kind not in _DICTIONARIES:
        raise sae.refuse(f"this class is not read (known: {', '.join(_DICTIONARIES)})",
                           "trainer.dict_class", kind or None)  # fmt: skip
    if buffer.get("io") in ("in", "in_and_out"):
        raise sae.refuse("it reads a module's input", "buffer.io", buffer["io"])
    d_in, n_latents = (trainer.get(key) for key in ("activation_dim", "dict_size"))
    if type(d_in) is not int or type(n_latents) is not int:
        raise sae.refuse("expected activation_dim and dict_size", "trainer", sorted(trainer))
    fixed = kind == "AutoEncoderTopK"
    k, layer = trainer.get("k"), trainer.get("layer")
    site = next((s for s in _SITES if s in str(trainer.get("submodule_name") or "")), "resid_post")
    return {
        "hookpoint": _SITES[site].format(layer) if isinstance(layer, int) else None,
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
    _refuse_unset_threshold(sae, info, weights)
    if info.activation == "relu":
        # Both classes give features in units of unit decoder rows: the first when it loads, the
        # second when it puts features out.
        weights.fold_decoder_norms()


def _dictionary_class(sae: Checkpoint) -> str:
    """The class, asked for when weights are read. Raises InputError for a training's state."""
    if isinstance(sae.contents.get("ae"), Mapping):
        raise sae.refuse("this is a checkpoint from the middle of a training, whose weights do"
                           " not fit activations as they come", weights=True)  # fmt: skip
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
