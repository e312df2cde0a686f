"""Write `tests/saes/`: tiny SAEs by the libraries that define the formats, with what those encode.

    python -m benchmarks.support.make_sae_fixtures tests/saes

Needs eai-sparsify 1.3.3, sae-lens 6.54.12 and dictionary-learning 0.1.0 (the extra `oracles`; the
last with `--no-deps`). Formats whose library is not installable are written here by hand from their
specification, and encoded by their definition in float64. Nothing of saelect is imported.
"""

import argparse
import json
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

D, M, K, N = 8, 32, 4, 24
Made = tuple[Tensor, Tensor]
"""Dense latents (N, M) and reconstructions (N, D) of the tokens, by the original."""


def tokens() -> Tensor:
    """The N tokens that every fixture is compared on, off center as real activations are."""
    g = torch.Generator().manual_seed(11)
    return 2 * torch.randn(N, D, generator=g) + torch.randn(D, generator=g)


def randomize(module: torch.nn.Module, seed: int = 5) -> None:
    """Every parameter at random, so that no convention hides behind a zero or a unit length."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.7 * torch.randn(parameter.shape, generator=g))


def sparsify(folder: Path, **config: object) -> Made:
    """eai-sparsify's own SparseCoder, saved by it."""
    from sparsify import SparseCoder, SparseCoderConfig

    coder = SparseCoder(D, SparseCoderConfig(k=K, **config))
    randomize(coder)
    coder.save_to_disk(folder)
    found = coder.encode(tokens())
    dense = torch.zeros(N, coder.num_latents)
    dense.scatter_add_(1, found.top_indices, found.top_acts)
    return dense, dense @ coder.W_dec + coder.b_dec


def saelens(folder: Path, architecture: str, **config: object) -> Made:
    """A training SAE of sae-lens, saved for inference by it and encoded by what it then loads."""
    import sae_lens

    prefix = {
        "topk": "TopK",
        "abstopk": "AbsTopK",
        "jumprelu": "JumpReLU",
        "gated": "Gated",
        "standard": "Standard",
        "batchtopk": "BatchTopK",
        "matryoshka": "MatryoshkaBatchTopK",
        "matching_pursuit": "MatchingPursuit",
    }[architecture]
    meta = sae_lens.saes.sae.SAEMetadata(
        model_name="org/tiny",
        hook_name="blocks.4.hook_resid_post",
        prepend_bos=True,
        context_size=128,
    )
    module = sae_lens.saes
    made = getattr(module, f"{prefix}TrainingSAEConfig")(d_in=D, d_sae=M, metadata=meta, **config)
    sae = getattr(module, f"{prefix}TrainingSAE")(made)
    randomize(sae)
    if architecture == "jumprelu":
        sae.threshold.data.copy_(torch.linspace(0.1, 2, M))
    if architecture == "matching_pursuit":
        sae.W_dec.data.mul_(0.45)  # rows of norm about 1, or residuals would grow
    if hasattr(sae, "topk_threshold"):
        sae.topk_threshold.fill_(0.75)
    sae.save_inference_model(folder)
    with torch.no_grad():
        loaded = sae_lens.SAE.load_from_disk(folder)
        dense = loaded.encode(tokens())
        return dense, loaded.decode(dense)


def saelens_inference(folder: Path, architecture: str, hook: str, **config: object) -> Made:
    """An SAE of sae-lens of an architecture that it only reads, saved and encoded by it."""
    import sae_lens
    from sae_lens.registry import SAE_CLASS_REGISTRY

    kind, made = SAE_CLASS_REGISTRY[architecture]
    meta = sae_lens.saes.sae.SAEMetadata(model_name="org/tiny", hook_name=hook)
    sae = kind(made(d_in=D, d_sae=M, metadata=meta, **config))
    randomize(sae)
    if "threshold" in dict(sae.named_parameters()):
        sae.threshold.data.copy_(torch.linspace(0.1, 2, M))
    sae.save_model(folder)
    with torch.no_grad():
        loaded = sae_lens.SAE.load_from_disk(folder)
        dense = loaded.encode(tokens())
        return dense, loaded.decode(dense)


def saelens_flat(folder: Path, **config: object) -> Made:
    """A flat config from before version 6 beside weights of version 6; read by sae-lens."""
    import sae_lens

    saelens(folder, "standard")
    flat = {
        "d_in": D,
        "d_sae": M,
        "dtype": "torch.float32",
        "device": "cpu",
        "model_name": "org/tiny",
        "hook_point": "blocks.5.hook_resid_pre",
        "hook_point_layer": 5,
        "hook_point_head_index": None,
        "activation_fn_str": "relu",
        "prepend_bos": True,
        "context_size": 128,
        "normalize_activations": False,
    }
    (folder / "cfg.json").write_text(json.dumps(flat | config))
    with torch.no_grad():
        loaded = sae_lens.SAE.load_from_disk(folder)
        dense = loaded.encode(tokens())
        return dense, loaded.decode(dense)


def dictionary(folder: Path, name: str, threshold: float | None = None) -> Made:
    """A class of dictionary_learning, its state dict and a config as its trainer writes them."""
    stub = types.ModuleType("nnsight")  # used by the package's buffers only
    stub.LanguageModel = object  # type: ignore[attr-defined]
    sys.modules.setdefault("nnsight", stub)
    from dictionary_learning import dictionary as classes
    from dictionary_learning.trainers.batch_top_k import BatchTopKSAE
    from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKSAE
    from dictionary_learning.trainers.top_k import AutoEncoderTopK

    made: Any = {
        "AutoEncoderTopK": lambda: AutoEncoderTopK(D, M, K),
        "BatchTopKSAE": lambda: BatchTopKSAE(D, M, K),
        "MatryoshkaBatchTopKSAE": lambda: MatryoshkaBatchTopKSAE(D, M, K, [8, 24]),
    }.get(name, lambda: getattr(classes, name)(D, M))()
    randomize(made)
    if threshold is not None:
        made.threshold.data.fill_(threshold)
    if name == "JumpReluAutoEncoder":
        made.threshold.data.copy_(torch.linspace(0, 2, M))
    folder.mkdir(parents=True)
    torch.save(made.state_dict(), folder / "ae.pt")
    trainer = {
        "dict_class": name,
        "activation_dim": D,
        "dict_size": M,
        "layer": 3,
        "k": K,
        "lm_name": "org/tiny",
        "submodule_name": "resid_post_layer_3",
    }
    if name in ("AutoEncoder", "AutoEncoderNew", "GatedAutoEncoder", "JumpReluAutoEncoder"):
        del trainer["k"]
    buffer = {"d_submodule": D, "io": "out", "ctx_len": 128}
    (folder / "config.json").write_text(json.dumps({"trainer": trainer, "buffer": buffer}))
    with torch.no_grad():
        if name == "AutoEncoder":
            made = classes.AutoEncoder.from_pretrained(folder / "ae.pt")  # it normalizes here
        if name == "AutoEncoderNew":
            recon, dense = made(tokens(), output_features=True)
            return dense, recon
        dense = made.encode(tokens())
        return dense, made.decode(dense)


def gemma_weights(upper: bool) -> dict[str, Tensor]:
    """Tensors in the names of Gemma Scope, or of Gemma Scope 2."""
    g = torch.Generator().manual_seed(7)
    shapes = {"W_enc": (D, M), "W_dec": (M, D), "b_enc": (M,), "b_dec": (D,)}
    found = {n: 0.7 * torch.randn(s, generator=g) for n, s in shapes.items()}
    found["threshold"] = torch.rand(M, generator=g) * 2
    return found if upper else {n.lower(): t for n, t in found.items()}


def gemma(folder: Path, inner: str, config: dict[str, Any] | None) -> Made:
    """By hand; encoded by sae-lens' JumpReLU SAE with the same tensors."""
    from sae_lens.saes import JumpReLUSAE, JumpReLUSAEConfig

    inside = folder / inner
    inside.mkdir(parents=True)
    weights = gemma_weights(upper=True)
    if config is None:
        np.savez(
            inside / "params.npz", allow_pickle=False, **{n: t.numpy() for n, t in weights.items()}
        )
    else:
        save_file(gemma_weights(upper=False), inside / "params.safetensors")
        (inside / "config.json").write_text(json.dumps(config))
    sae = JumpReLUSAE(JumpReLUSAEConfig(d_in=D, d_sae=M, apply_b_dec_to_input=False))
    sae.load_state_dict(weights)
    with torch.no_grad():
        dense = sae.encode(tokens())
        return dense, sae.decode(dense)


def llama_scope(folder: Path, **config: object) -> Made:
    """By hand, with rows of any length; encoded as its reference inference does, in float64."""
    g = torch.Generator().manual_seed(9)
    shapes = {
        "encoder.weight": (M, D),
        "encoder.bias": (M,),
        "decoder.weight": (D, M),
        "decoder.bias": (D,),
    }
    tensors = {n: 0.7 * torch.randn(s, generator=g) for n, s in shapes.items()}
    hyper: dict[str, Any] = {
        "d_model": D,
        "d_sae": M,
        "expansion_factor": M // D,
        "act_fn": "jumprelu",
        "jump_relu_threshold": 0.4,
        "norm_activation": "dataset-wise",
        "top_k": 4,
        "dataset_average_activation_norm": {"in": 6.5, "out": 6.5},
        "sparsity_include_decoder_norm": True,
        "apply_decoder_bias_to_pre_encoder": False,
        "use_decoder_bias": True,
        "hook_point_in": "blocks.15.hook_resid_post",
        "hook_point_out": "blocks.15.hook_resid_post",
    } | config
    (folder / "checkpoints").mkdir(parents=True)
    save_file(tensors, folder / "checkpoints" / "final.safetensors")
    (folder / "hyperparams.json").write_text(json.dumps(hyper))
    w, b, d, c = (t.double() for t in tensors.values())
    scale = D**0.5 / 6.5 if hyper["norm_activation"] == "dataset-wise" else 1.0
    x = tokens().double()
    x = x - c / scale if hyper["apply_decoder_bias_to_pre_encoder"] else x
    pre = x @ w.T + b / scale
    norms = d.norm(dim=0) if hyper["sparsity_include_decoder_norm"] else torch.ones(M)
    acts = pre * norms
    if hyper["act_fn"] == "topk":
        kept = acts.relu().topk(4, dim=1).indices
        dense = torch.zeros_like(acts).scatter(1, kept, acts.relu().gather(1, kept))
    else:
        dense = acts.relu() * (acts > hyper["jump_relu_threshold"])
    return dense.float(), ((dense / norms) @ d.T + c / scale).float()


def llamascopium(folder: Path, r1: bool = False, **config: object) -> Made:
    """By hand, in the names of 2.x or of R1; encoded as the library defines it, in float64."""
    g = torch.Generator().manual_seed(19)
    w, b, d, c = (0.7 * torch.randn(s, generator=g) for s in ((D, M), (M,), (M, D), (D,)))
    log_threshold, hook = torch.randn(M, generator=g) / 2, "blocks.12.hook_resid_post"
    settings: dict[str, Any] = {
        "sae_type": "sae",
        "d_model": D,
        "expansion_factor": M / D,
        "use_decoder_bias": True,
        "act_fn": "topk",
        "norm_activation": "dataset-wise",
        "sparsity_include_decoder_norm": True,
        "top_k": K,
        "use_triton_kernel": False,
        "jumprelu_threshold_window": 2.0,
        "sparsity_threshold_for_triton_spmm_kernel": 0.996,
        "hook_point_in": hook,
        "hook_point_out": hook,
        "use_glu_encoder": False,
    } | config
    names, threshold = ("W_E", "b_E", "W_D", "b_D"), "activation_function.log_jumprelu_threshold"
    if r1:
        names = ("encoder.weight", "encoder.bias", "decoder.weight", "decoder.bias")
        threshold = "log_jumprelu_threshold"
    stored = (w.T, b, d.T, c) if r1 else (w, b, d, c)
    tensors = {n: t.contiguous() for n, t in zip(names, stored, strict=True)}
    tensors[f"dataset_average_activation_norm.{hook}"] = torch.tensor(6.5)
    if settings["act_fn"] == "jumprelu":
        tensors[threshold] = log_threshold
    folder.mkdir(parents=True)
    save_file(tensors, folder / "sae_weights.safetensors")
    (folder / "config.json").write_text(json.dumps(settings))

    x = tokens().double()
    scale = {
        "dataset-wise": torch.full((N, 1), D**0.5 / 6.5, dtype=torch.float64),
        "token-wise": D**0.5 / x.norm(dim=1, keepdim=True),
        "inference": torch.ones(N, 1),
    }[settings["norm_activation"]]
    scaled = x * scale
    if settings.get("apply_decoder_bias_to_pre_encoder"):
        scaled = scaled - c
    pre = scaled @ w.double() + b
    by_norm = settings["sparsity_include_decoder_norm"]
    gate = pre * (d.double().norm(dim=1) if by_norm else 1.0)
    if settings["act_fn"] == "topk":
        active = torch.zeros_like(pre).scatter(1, gate.relu().topk(K, dim=1).indices, 1.0)
        active = active * (gate > 0)
    else:
        active = gate > (log_threshold.double().exp() if settings["act_fn"] == "jumprelu" else 0)
    dense = pre * active
    return dense.float(), ((dense @ d.double() + c) / scale).float()


def openai(folder: Path, activation: str) -> Made:
    """By hand, as the library's state dict is; encoded by its definition in float64."""
    g = torch.Generator().manual_seed(13)
    shapes = {
        "pre_bias": (D,),
        "latent_bias": (M,),
        "encoder.weight": (M, D),
        "decoder.weight": (D, M),
    }
    state: dict[str, Any] = {n: 0.7 * torch.randn(s, generator=g) for n, s in shapes.items()}
    bias, latent_bias, w, d = (t.double() for t in state.values())
    state["stats_last_nonzero"] = torch.zeros(M, dtype=torch.long)
    state["activation"] = activation
    if activation == "TopK":
        state["activation_state_dict"] = {"k": K, "postact_fn": "ReLU"}
    inside = folder / "resid_post_mlp_v5_32k" / "autoencoders"
    inside.mkdir(parents=True)
    torch.save(state, inside / "8.pt")
    x = tokens().double()
    mean, std = torch.zeros(N, 1), torch.ones(N, 1)
    if activation == "TopK":
        mean, std = x.mean(1, keepdim=True), x.std(1, keepdim=True)
        x = (x - mean) / (std + 1e-5)
    pre = (x - bias) @ w.T + latent_bias
    dense = pre.relu()
    if activation == "TopK":
        top = pre.topk(K, dim=1)
        dense = torch.zeros_like(pre).scatter(1, top.indices, top.values.relu())
    return dense.float(), ((dense @ d.T + bias) * std + mean).float()


def qwen_scope(folder: Path) -> Made:
    """By hand, as the repository lays it out; encoded by its definition in float64."""
    g = torch.Generator().manual_seed(17)
    shapes = {"W_enc": (M, D), "W_dec": (D, M), "b_enc": (M,), "b_dec": (D,)}
    state = {n: 0.7 * torch.randn(s, generator=g) for n, s in shapes.items()}
    inside = folder / "SAE-Res-Qwen3-1.7B-Base-W32K-L0_4"
    inside.mkdir(parents=True)
    torch.save(state, inside / "layer14.sae.pt")
    w, d, b, c = (t.double() for t in state.values())
    pre = tokens().double() @ w.T + b
    top = pre.topk(K, dim=1)
    dense = torch.zeros_like(pre).scatter(1, top.indices, top.values.relu())
    return dense.float(), (dense @ d.T + c).float()


def goodfire(folder: Path) -> Made:
    """By hand, as its one class saves it: two linear layers; encoded by hand in float64."""
    g = torch.Generator().manual_seed(23)
    shapes = {
        "encoder_linear.weight": (M, D),
        "encoder_linear.bias": (M,),
        "decoder_linear.weight": (D, M),
        "decoder_linear.bias": (D,),
    }
    state = {n: 0.7 * torch.randn(s, generator=g) for n, s in shapes.items()}
    folder.mkdir(parents=True)
    torch.save(state, folder / "Llama-3.1-8B-Instruct-SAE-l19.pth")
    w, b, d, c = (t.double() for t in state.values())
    dense = (tokens().double() @ w.T + b).relu()
    return dense.float(), (dense @ d.T + c).float()


def by_hand(names: tuple[str, str, str, str], seed: int) -> dict[str, Tensor]:
    """Encoder (M, D), its bias, decoder (M, D), its bias, by these names."""
    g = torch.Generator().manual_seed(seed)
    shapes = zip(names, ((M, D), (M,), (M, D), (D,)), strict=True)
    return {name: 0.7 * torch.randn(shape, generator=g) for name, shape in shapes}


def top_k(state: dict[str, Tensor]) -> Made:
    """The K largest of relu(W x + b), nothing subtracted, in float64; and what they decode to."""
    w, b, d, c = (t.double() for t in list(state.values())[:4])
    top = (tokens().double() @ w.T + b).relu().topk(K, dim=1)
    dense = torch.zeros(N, M, dtype=torch.float64).scatter(1, top.indices, top.values)
    return dense.float(), (dense @ d + c).float()


def sparsify_transcoder(folder: Path) -> Made:
    """By hand, as sparsify lays out a skip transcoder; what the skip adds is no latent."""
    state = by_hand(("encoder.weight", "encoder.bias", "W_dec", "b_dec"), 29)
    folder.mkdir(parents=True)
    skip = torch.randn(D, D, generator=torch.Generator().manual_seed(30))
    save_file({**state, "W_skip": skip}, folder / "sae.safetensors")
    config = {"activation": "topk", "num_latents": M, "k": K, "d_in": D, "transcode": True,
              "skip_connection": True, "normalize_decoder": False}  # fmt: skip
    (folder / "cfg.json").write_text(json.dumps(config))
    return top_k(state)


def circuit_tracer(folder: Path) -> Made:
    """By hand, as circuit-tracer writes a set of transcoders; encoded by its definition."""
    state = by_hand(("W_enc", "b_enc", "W_dec", "b_dec"), 31)
    folder.mkdir(parents=True)
    save_file({**state, "W_skip": torch.eye(D)}, folder / "layer_3.safetensors")
    (folder / "config.yaml").write_text(
        "model_name: Qwen/Qwen3-0.6B\nmodel_kind: transcoder_set\nactivation: topk\n"
        f"k: {K}\nfeature_input_hook: mlp.hook_in\nfeature_output_hook: hook_mlp_out\n"
    )
    return top_k(state)


def dictionary_hub(folder: Path) -> Made:
    """By hand, as the hub's mixin writes a BatchTopK dictionary; encoded by its definition."""
    state = by_hand(("encoder.weight", "encoder.bias", "decoder.weight", "b_dec"), 37)
    folder.mkdir(parents=True)
    w, b, d, c = (t.double() for t in state.values())
    save_file({**state, "decoder.weight": d.float().T.contiguous(), "threshold": torch.tensor(0.8),
               "k": torch.tensor(K, dtype=torch.int)}, folder / "model.safetensors")  # fmt: skip
    config = {"activation_dim": D, "dict_size": M, "k": K, "decoder_type": "linear"}
    (folder / "config.json").write_text(json.dumps(config))
    pre = ((tokens().double() - c) @ w.T + b).relu()
    dense = pre * (pre > 0.8)
    return dense.float(), (dense @ d + c).float()


GEMMA_2 = {
    "architecture": "jump_relu",
    "model_name": "gemma-v3-270m-it",
    "l0": 11,
    "width": M,
    "hf_hook_point_in": "model.layers.9.output",
    "hf_hook_point_out": "model.layers.9.output",
    "affine_connection": False,
}
CASES: dict[str, Callable[[Path], Made]] = {
    "sparsify_topk": lambda f: sparsify(f / "layers.4", num_latents=M),
    "sparsify_factor": lambda f: sparsify(f / "h.1", expansion_factor=4, normalize_decoder=False),
    "sparsify_groupmax": lambda f: sparsify(
        f / "layers.2.mlp", num_latents=M, activation="groupmax"
    ),
    "saelens_standard": lambda f: saelens(f, "standard"),
    "saelens_no_subtraction": lambda f: saelens(f, "standard", apply_b_dec_to_input=False),
    "saelens_layer_norm": lambda f: saelens(f, "standard", normalize_activations="layer_norm"),
    "saelens_constant_norm": lambda f: saelens(
        f, "standard", normalize_activations="constant_norm_rescale"
    ),
    "saelens_topk": lambda f: saelens(f, "topk", k=K, rescale_acts_by_decoder_norm=False),
    "saelens_topk_rescaled": lambda f: saelens(f, "topk", k=K, rescale_acts_by_decoder_norm=True),
    "saelens_abstopk": lambda f: saelens(f, "abstopk", k=K, rescale_acts_by_decoder_norm=False),
    "saelens_jumprelu": lambda f: saelens(f, "jumprelu"),
    "saelens_gated": lambda f: saelens(f, "gated"),
    "saelens_batchtopk": lambda f: saelens(f, "batchtopk", k=K),
    "saelens_matryoshka": lambda f: saelens(f, "matryoshka", k=K, matryoshka_widths=[8, 32]),
    "saelens_matching_pursuit": lambda f: saelens(
        f, "matching_pursuit", residual_threshold=0.6, max_iterations=9, decoder_init_norm=1.0
    ),
    "saelens_flat": lambda f: saelens_flat(f),
    "saelens_flat_topk": lambda f: saelens_flat(
        f, activation_fn_str="topk", activation_fn_kwargs={"k": K}
    ),
    "saelens_heads": lambda f: saelens_inference(f, "topk", "blocks.2.attn.hook_z", k=K),
    "saelens_skip_transcoder": lambda f: saelens_inference(
        f, "skip_transcoder", "blocks.2.hook_mlp_in", d_out=D, apply_b_dec_to_input=False
    ),
    "saelens_jumprelu_transcoder": lambda f: saelens_inference(
        f,
        "jumprelu_transcoder",
        "blocks.2.ln2.hook_normalized",
        d_out=D,
        apply_b_dec_to_input=False,
    ),
    "dictionary_AutoEncoder": lambda f: dictionary(f, "AutoEncoder"),
    "dictionary_AutoEncoderNew": lambda f: dictionary(f, "AutoEncoderNew"),
    "dictionary_AutoEncoderTopK": lambda f: dictionary(f, "AutoEncoderTopK"),
    "dictionary_BatchTopKSAE": lambda f: dictionary(f, "BatchTopKSAE", threshold=0.8),
    "dictionary_Matryoshka": lambda f: dictionary(f, "MatryoshkaBatchTopKSAE", threshold=0.8),
    "dictionary_Gated": lambda f: dictionary(f, "GatedAutoEncoder"),
    "dictionary_JumpRelu": lambda f: dictionary(f, "JumpReluAutoEncoder"),
    "gemma_scope": lambda f: gemma(
        f, "gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71", None
    ),
    "gemma_scope_2": lambda f: gemma(f, "resid_post/layer_9_width_16k_l0_small", GEMMA_2),
    "llama_scope": lambda f: llama_scope(f),
    "llama_scope_topk": lambda f: llama_scope(
        f, act_fn="topk", apply_decoder_bias_to_pre_encoder=True
    ),
    "llama_scope_unscaled": lambda f: llama_scope(
        f, norm_activation="none", sparsity_include_decoder_norm=False
    ),
    "llama_scope_r1": lambda f: llamascopium(
        f, r1=True, act_fn="jumprelu", apply_decoder_bias_to_pre_encoder=False
    ),
    "llamascopium_topk": lambda f: llamascopium(f),
    "llamascopium_jumprelu": lambda f: llamascopium(f, act_fn="jumprelu"),
    "llamascopium_folded": lambda f: llamascopium(
        f, act_fn="jumprelu", norm_activation="inference", sparsity_include_decoder_norm=False
    ),
    "llamascopium_token_wise": lambda f: llamascopium(
        f, act_fn="relu", norm_activation="token-wise"
    ),
    "qwen_scope": lambda f: qwen_scope(f),
    "goodfire": lambda f: goodfire(f),
    "sparsify_transcoder": lambda f: sparsify_transcoder(f / "layers.3.mlp"),
    "circuit_tracer": lambda f: circuit_tracer(f),
    "dictionary_hub": lambda f: dictionary_hub(f),
    "openai_topk": lambda f: openai(f, "TopK"),
    "openai_relu": lambda f: openai(f, "ReLU"),
}


def write(target: Path) -> list[str]:
    """Write every case that is not there yet; returns their names."""
    for name, make in CASES.items():
        folder = target / name
        if folder.exists():
            continue
        torch.manual_seed(0)
        dense, recon = make(folder)
        arrays: dict[str, NDArray[Any]] = {
            "x": tokens().numpy(),
            "dense": dense.detach().numpy(),
            "recon": recon.detach().numpy(),
        }
        np.savez_compressed(folder / "expected.npz", allow_pickle=False, **arrays)
    return list(CASES)


def main() -> None:
    """Write into the folder that is named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    print("\n".join(write(parser.parse_args().folder)))


if __name__ == "__main__":
    main()
