"""Formats of training libraries: sparsify and SAELens."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from selection.models.hookpoints import Hookpoint, canonical, hookpoint_of, refuse_inputs
from selection.sae.formats.layout import Checkpoint, Choice, Layout, Names
from selection.sae.metadata import RECORD, SaeInfo, read_object

if TYPE_CHECKING:
    from selection.sae.formats.weight_files import Weights

_OTHER_WIDTH = "this transcoder predicts activations of another width than it reads"
_UNSET = "a threshold below 0 was never set: the training was too short"


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def refuse_unset_threshold(sae: Checkpoint, info: SaeInfo, weights: "Weights") -> None:
    """Raise InputError for a threshold that training had not reached."""
    if info.activation == "jumprelu" and bool((weights.extra["threshold"] < 0).any()):
        raise sae.refuse(_UNSET, "threshold", weights=True)


def _from_record(sae: Checkpoint) -> dict[str, Any]:
    """What saelect wrote beside an SAE that it trained."""
    record = sae.beside(RECORD)
    known = {
        "record": record,
        "model_sha256": _text(record.get("model_sha256")),
        "model_name": _text(record.get("model")),
        "licence": _text(record.get("licence")),
        "hookpoint": _text(record.get("hookpoint")),
        "is_transcoder": record.get("kind") == "vocabulary",  # it predicts tokens
    }
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
    parsed, transcodes = hookpoint_of(folder.name), sae.flag("transcode", default=False)
    named = folder.name if parsed and parsed.site == "resid" else canonical(folder.name)
    if parsed and transcodes:
        named = _read_by_transcoder(sae, parsed)
    if config.get("skip_connection") and not transcodes:
        raise sae.refuse("beside its latents a skip connection reconstructs", "skip_connection")
    run_file = folder.parent / "config.json"
    run = read_object(run_file) if parsed and run_file.is_file() else {}
    dtype = sae.header.get("encoder.weight", ((), ""))[1]
    return {
        "hookpoint": named if parsed else None,
        "d_in": d_in,
        "num_latents": n_latents,
        "dtype": {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}.get(dtype, dtype),
        "model_name": _text(run.get("model")),
        "centers": not transcodes,
        "is_transcoder": transcodes,
        **_from_record(sae),
    }


def _read_by_transcoder(sae: Checkpoint, module: Hookpoint) -> str:
    """Where a transcoder of a module reads: that module's input. Raises InputError."""
    if module.site == "mlp_module":
        return str(Hookpoint("mlp_in", module.block))
    if module.site == "resid" and module.block > 0:
        return f"layers.{module.block - 1}"
    raise sae.refuse("it reads the input of a module that is not read", "transcode", sae.path.name)


SPARSIFY = Layout(
    name="sparsify",
    title="sparsify (EleutherAI)",
    files=("cfg.json", "sae.safetensors"),
    loads="topk, groupmax; transcoders of blocks and MLPs, with a skip connection too",
    refuses="transcoders of attention, skip connections of SAEs, signed latents",
    oracle="eai-sparsify 1.3.3",
    # `normalize_decoder` is a rule of training: the stored decoder is used as it is.
    names={"": Names("encoder.weight", "encoder.bias", "W_dec", "b_dec")},
    activation=Choice(
        "activation", {"topk": "topk", "groupmax": "groupmax"}, "expected topk or groupmax", "topk"
    ),
    refused={"signed": "expected false: latents must not be negative"},
    facts=_sparsify,
)


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
    transcodes = architecture.endswith("transcoder")
    if config.get("d_out") not in (None, config.get("d_in")):
        raise sae.refuse(_OTHER_WIDTH, "d_out")
    if architecture == "standard" and config.get("activation_fn", "relu") not in ("relu", None):
        raise sae.refuse("only relu is read here", "activation_fn")
    if meta.get("hook_head_index") is not None:
        raise sae.refuse(
            "it reads a single attention head", "hook_head_index", meta["hook_head_index"]
        )
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
        "centers": bool(config.get("apply_b_dec_to_input", not transcodes)),
        "is_transcoder": transcodes,
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
    if architecture == "codebook":
        facts["groups"] = _groups(sae)
    return facts | (_pursuit(sae) if architecture == "matching_pursuit" else {})


def _groups(sae: Checkpoint) -> int:
    """Parts of the activation that have codes of their own. Raises InputError."""
    groups = sae.whole("groups")
    if any(size % groups for size in (*sae.sizes, sae.whole("k"))):
        raise sae.refuse("expected a divisor of d_in, d_sae and k", "groups")
    return groups


def _pursuit(sae: Checkpoint) -> dict[str, Any]:
    """When the steps of a matching pursuit end. Raises InputError."""
    if not sae.flag("stop_on_duplicate_support", default=True):
        raise sae.refuse(
            "only pursuits that end when a latent comes again are read", "stop_on_duplicate_support"
        )
    rest, (d_in, n_latents) = sae.config.get("residual_threshold", 0.01), sae.sizes
    if isinstance(rest, bool) or not isinstance(rest, int | float) or not 0 <= rest < math.inf:
        raise sae.refuse("expected a number, 0 or more", "residual_threshold")
    limited = sae.config.get("max_iterations") is not None
    steps = sae.whole("max_iterations") if limited else d_in
    # Of M latents one comes again after M steps at most.
    return {"k": min(steps, n_latents + 1), "residual_threshold": float(rest)}


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
        raise sae.refuse("a fine-tuned scaling factor is not read", "scaling_factor", weights=True)
    refuse_unset_threshold(sae, info, weights)
    release = _RELEASES.get(sae.source)
    if isinstance(release, dict) and sae.path.name in release:
        weights.scale_input(release[sae.path.name])
    if sae.config.get("rescale_acts_by_decoder_norm") and info.activation == "topk":
        weights.fold_decoder_norms()
    if sae.config["architecture"] == "abstopk":
        weights.add_negatives()
    if info.activation == "matching_pursuit" and not info.centers:  # it is not added either
        weights.b_dec = weights.b_dec.new_zeros(len(weights.b_dec))


_SAELENS_NAMES = Names("W_enc", "b_enc", "W_dec", "b_dec", transposed=("w_enc",))
_FACTOR = "a scaling factor that is not folded into the weights is not read"
SAELENS = Layout(
    name="saelens",
    title="SAELens",
    files=("cfg.json", "sae_weights.safetensors"),
    loads="standard, topk (also rescaled), abstopk, jumprelu (so batchtopk, matryoshka), gated,"
    " matching pursuit; transcoders; hook_z; v6 and older flat configs; layer norm and constant"
    " norm; seminmf and codebook, which saelect alone writes",
    refuses="temporal, single heads, unfolded norm factors, centered writing weights",
    oracle="sae-lens 6.54.12",
    names={
        "": _SAELENS_NAMES,
        "gated": Names(
            "W_enc",
            "b_gate",
            "W_dec",
            "b_dec",
            transposed=("w_enc",),
            magnitudes=("r_mag", "b_mag"),
        ),
        "seminmf": Names("W_dec", "b_enc", "W_dec", "b_dec"),  # ours: SAELens does not know it
        "matching_pursuit": Names("W_dec", "", "W_dec", "b_dec"),
    },
    variant=lambda sae: (
        kind
        if (kind := sae.config["architecture"]) in ("gated", "seminmf", "matching_pursuit")
        else ""
    ),
    modern=_modern_saelens,
    # BatchTopK and Matryoshka SAEs are saved as jumprelu with a constant threshold.
    activation=Choice(
        "architecture",
        {
            "standard": "relu",
            "topk": "topk",
            "abstopk": "topk",
            "jumprelu": "jumprelu",
            "gated": "gated",
            "seminmf": "seminmf",
            "codebook": "codebook",
            "matching_pursuit": "matching_pursuit",
            "transcoder": "relu",
            "skip_transcoder": "relu",
            "jumprelu_transcoder": "jumprelu",
            "jumprelu_skip_transcoder": "jumprelu",
        },
        "this architecture is not read (known: standard, topk, abstopk, jumprelu, gated, matching"
        " pursuit, and transcoders)",
        because={
            "temporal": "of a temporal SAE a token's latents depend on the tokens before it",
        },
    ),
    # The last two are folded into the weights when training ends, and never applied afterwards.
    input_norm=Choice(
        "normalize_activations",
        {
            "none": "none",
            "layer_norm": "layer_norm",
            "constant_norm_rescale": "sqrt_d",
            "expected_average_only_in": "none",
            "covariance_whitening": "none",
        },
        "this input norm is not known",
    ),
    refused=dict.fromkeys(
        ("finetuning_scaling_factor", "scaling_factor", "norm_scaling_factor"), _FACTOR
    ),
    facts=_saelens,
    convert=_convert_saelens,
)
