"""The model's own vocabulary as a dictionary: nothing is trained, a latent is a token.

Logit lens: a state of the residual stream goes through the final norm and the unembedding. What is
kept of a token's state is what VDR (arXiv 2212.07699) keeps of a text: elu1p of the largest logits,
which is logit + 1 above 0; aggregate `max` then is its maximum over tokens. Logits are taken less
their mean over the vocabulary, since only differences of logits mean anything.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from selection.activations.loading import (
    KINDS_OF_TRUE_DEPTH,
    find_blocks,
    load_config,
    load_module,
)
from selection.core.errors import InputError
from selection.core.printable import printable
from selection.models.hookpoints import Hookpoint, canonical
from selection.models.resolve import ResolvedModel
from selection.rendering.renderer import Renderer
from selection.sae.coder import SparseCoder, make_coder
from selection.sae.encode import normed
from selection.sae.formats.save import save_saelens
from selection.sae.interpret.latents_file import FILE, write_latents
from selection.sae.metadata import SaeInfo

KIND = "vocabulary"
_SITES = ("resid", "resid_mid")  # what the final norm and the unembedding can read
_PROBES = 64  # tokens on which the final norm is found out
_TOLERANCE = 0.01  # of a standard deviation: far above the epsilon that norms add


def write_vocabulary(
    model: ResolvedModel, hookpoint: Hookpoint, k: int, folder: Path, renderer: Renderer
) -> None:
    """Write the dictionary as SAELens' format holds it, its latents described by their tokens.

    A folder without `cfg.json`, which is written last, is no SAE. Raises InputError.
    """
    spelled = canonical(str(hookpoint)) or str(hookpoint)
    coder = vocabulary_coder(model, hookpoint, k)
    coder = coder.trained_on(model.name, model.weights_sha256, spelled)
    ids = np.arange(min(coder.info.num_latents, renderer.n_token_ids), dtype=np.uint32)
    texts = [renderer.decode(ids[i : i + 1]) for i in range(len(ids))]
    rows = [
        {"latent": i, "description": printable(json.dumps(text, ensure_ascii=False))}
        for i, text in enumerate(texts)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    write_latents(folder / FILE, rows, {"sae_sha256": coder.info.sha256})
    save_saelens(coder, folder, {"kind": KIND})


def vocabulary_coder(model: ResolvedModel, hookpoint: Hookpoint, k: int) -> SparseCoder:
    """A coder whose latents are the model's V tokens: elu1p of the k largest logits of a state.

    The final norm is one of the input norms, and its weight and bias are folded into the encoder;
    for a deeper block's state the logits are the model's own, less their mean. Embedding, first
    block and head are loaded, in float32. Raises InputError for a model without an unembedding of
    its residual stream, and for another hookpoint.
    """
    if model.kind != "causal":
        raise _refused("an encoder has no unembedding", model)
    if hookpoint.site not in _SITES:
        raise InputError(
            "the unembedding reads the residual stream",
            field="model.hookpoint",
            value=str(hookpoint),
            remedy=f"Write resid@{hookpoint.block}.",
        )
    is_whole = model.model_type.startswith(KINDS_OF_TRUE_DEPTH)
    config = load_config(model, None if is_whole else 1)
    module: Any = load_module(model, config, torch.float32, with_head=True).eval()
    head = module.get_output_embeddings()
    if head is None:
        raise _refused("it has no unembedding", model)
    block = find_blocks(module, model.n_layers if is_whole else 1)[-1]
    words = head.weight.detach()
    if not 1 <= k <= len(words):
        raise InputError(
            f"the vocabulary has {len(words):,} tokens",
            field="sae.train.k",
            value=k,
            remedy="Keep fewer of them for each token; 32 is the default.",
        )
    norm, scale, shift = _final_norm(module, block, head, model)
    offsets = words @ shift
    offsets = offsets if getattr(head, "bias", None) is None else offsets + head.bias.detach()
    weight = (words - words.mean(dim=0)) * scale
    info = SaeInfo(
        path="",
        hookpoint=str(hookpoint),
        d_in=weight.shape[1],
        num_latents=len(weight),
        k=k,
        centers=False,
        input_norm=norm,
        is_transcoder=True,
        record={"kind": KIND},
    )
    zeros = torch.zeros(weight.shape[1])
    return make_coder(weight, offsets - offsets.mean() + 1, weight, zeros, info=info)


def _final_norm(
    module: Any, block: torch.nn.Module, head: torch.nn.Module, model: ResolvedModel
) -> tuple[str, Tensor, Tensor]:
    """Which norm lies between the last block and the head, and its weight and bias, each (D,).

    Found out on states of the model itself: whatever a family calls its norm, and does beside it,
    must be one of the input norms, times a weight, plus a bias.
    """
    seen: dict[str, Tensor] = {}

    def leaving(_: object, __: object, output: Any) -> None:
        seen["x"] = (output[0] if isinstance(output, tuple) else output).detach()[0]

    def entering(_: object, arguments: tuple[Tensor, ...]) -> None:
        seen["y"] = arguments[0].detach()[0]

    hooks = block.register_forward_hook(leaving), head.register_forward_pre_hook(entering)
    tokens = torch.linspace(0, module.get_input_embeddings().weight.shape[0] - 1, _PROBES)
    with torch.no_grad():
        module(input_ids=tokens.long()[None], use_cache=False)
    for hook in hooks:
        hook.remove()
    x, y = seen["x"], seen["y"].double()
    fits = []
    for norm in ("sqrt_d", "layer_norm") if x.shape == y.shape else ():
        z = normed(norm, x).double()
        around, level = z.mean(dim=0), y.mean(dim=0)
        scale = ((z - around) * (y - level)).sum(dim=0) / (z - around).square().sum(dim=0)
        shift = level - scale * around
        error = (y - z * scale - shift).abs().max() / y.std()
        fits.append((float(error), norm, scale.float(), shift.float()))
    best = min(fits, default=None, key=lambda each: each[0])
    if best is None or not best[0] < _TOLERANCE:
        raise _refused("what lies between its last block and its head is no known norm", model)
    return best[1:]


def _refused(problem: str, model: ResolvedModel) -> InputError:
    return InputError(
        f"this model has no vocabulary that its states can be read in: {problem}",
        file=model.path,
        field="sae.train.architecture",
        value=KIND,
        remedy="Train an SAE (`architecture: topk`), or take a causal language model.",
    )
