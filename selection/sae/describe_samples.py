"""Samples through model and SAE to descriptions of latents: tokens and contexts as text."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from selection.activations import ActivationModel
from selection.batching import iter_activations
from selection.records import Rendered
from selection.rendering import Renderer
from selection.sae.coder import SparseCoder
from selection.sae.describe import LatentProfile, LatentStatistics
from selection.sae.encode import encode

BEFORE, AFTER = 8, 4  # counted tokens around an example's peak
_LIFTED = 2.0  # from this lift on a token says something about a latent
_SHOWN_TOKENS = 3
_SHOWN_CHARACTERS = 48


def profile_samples(
    samples: Sequence[Rendered],
    model: ActivationModel,
    coder: SparseCoder,
    n_vocab: int,
    *,
    tokens_per_batch: int,
    n_examples: int = 3,
    n_top: int = 5,
) -> LatentProfile:
    """What the latents do on some samples; `samples` in the profile are positions in this list."""
    found = LatentStatistics(coder.info.num_latents, n_vocab, n_examples)
    coder = coder.to(model.device)
    for batch in iter_activations(model, samples, tokens_per_batch):
        latents = encode(coder, batch.hidden)
        first = np.searchsorted(batch.sample_of_token, np.arange(len(batch.rows)))
        found.add(
            latents.top_acts.cpu().numpy(),
            latents.top_indices.cpu().numpy(),
            batch.token_ids,
            batch.rows[batch.sample_of_token],
            np.arange(len(batch.token_ids)) - first[batch.sample_of_token],
        )
    return found.profile(n_top)


def description_rows(
    profile: LatentProfile,
    samples: Sequence[Rendered],
    names: Sequence[str],
    renderer: Renderer,
) -> list[dict[str, object]]:
    """Rows of `latents_file.SCHEMA` for every latent that fired.

    samples, names: what was profiled, and how each sample is called.
    """
    return [
        _row(latent, profile, samples, names, renderer)
        for latent in np.flatnonzero(profile.density > 0).tolist()
    ]


def _row(
    latent: int,
    profile: LatentProfile,
    samples: Sequence[Rendered],
    names: Sequence[str],
    renderer: Renderer,
) -> dict[str, object]:
    tokens = [
        {
            "token": renderer.decode(np.array([token], np.uint32)),
            "share": share,
            "lift": lift,
        }
        for token, share, lift in zip(
            profile.tokens[latent].tolist(),
            profile.token_share[latent].tolist(),
            profile.token_lift[latent].tolist(),
            strict=True,
        )
        if token >= 0
    ]
    examples = [
        {"example": names[sample], **_context(samples[sample], position, renderer), "act": act}
        for sample, position, act in zip(
            profile.samples[latent].tolist(),
            profile.positions[latent].tolist(),
            profile.acts[latent].tolist(),
            strict=True,
        )
        if sample >= 0
    ]
    return {
        "latent": latent,
        "description": describe(tokens, examples),
        "density": float(profile.density[latent]),
        "max_act": float(profile.max_act[latent]),
        "tokens": tokens,
        "examples": examples,
    }


def _context(sample: Rendered, position: int, renderer: Renderer) -> dict[str, str]:
    """Counted tokens around one of them, as text."""
    tokens: NDArray[np.uint32] = sample.tokens[sample.counted]
    start = max(0, position - BEFORE)
    return {
        "before": renderer.decode(tokens[start:position]),
        "token": renderer.decode(tokens[position : position + 1]),
        "after": renderer.decode(tokens[position + 1 : position + 1 + AFTER]),
    }


def describe(tokens: Sequence[dict[str, object]], examples: Sequence[dict[str, object]]) -> str:
    """One line: the tokens it prefers, and the place where it is strongest."""
    lifted = [token for token in tokens if float(str(token["lift"])) >= _LIFTED]
    spelled = [f"“{_visible(str(token['token']))}”" for token in (lifted or tokens)[:_SHOWN_TOKENS]]
    text = " ".join(spelled)
    if not examples:
        return text
    peak = examples[0]
    before = _visible(str(peak["before"]))[-_SHOWN_CHARACTERS // 2 :]
    after = _visible(str(peak["after"]))[: _SHOWN_CHARACTERS // 4]
    return f"{text}, as in …{before}[{_visible(str(peak['token']))}]{after}…"


def _visible(text: str) -> str:
    """Line breaks as signs, so that a description is one line."""
    return text.replace("\n", "⏎").replace("\t", "⇥")
