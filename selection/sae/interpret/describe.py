"""Samples through model and SAE to descriptions of latents: tokens and contexts as text."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from selection.activations.batching import iter_activations
from selection.activations.model import ActivationModel
from selection.core.errors import InputError
from selection.models.hookpoints import Hookpoint, hookpoint_of
from selection.records import Rendered
from selection.rendering.renderer import Renderer
from selection.sae.coder import SparseCoder
from selection.sae.encode import encode
from selection.sae.interpret.facets import FacetCounts, Facets
from selection.sae.interpret.head_shares import HeadShares, HeadSums
from selection.sae.interpret.logit_lens import Lens, logit_lens, read_unembedding
from selection.sae.interpret.statistics import LatentProfile, LatentStatistics

BEFORE, AFTER = 8, 4  # content tokens around an example's peak
MIN_LIFT = 2.0  # from this lift on a token or a label says something about a latent
_SHOWN_TOKENS = 3
_SHOWN_CHARACTERS = 48

_BESIDE_THE_STREAM = {
    "heads": "the attention heads' outputs",
    "mlp_hidden": "the hidden units of the MLP",
}

LatentSink = Callable[
    [NDArray[np.float32], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]], None
]
"""Takes values and latents (t, k) of t tokens, and the sample and position of each, (t,)."""


def profile_latents(
    samples: Sequence[Rendered],
    model: ActivationModel,
    coder: SparseCoder,
    *,
    labels: Mapping[str, Sequence[str]] | None = None,
    tokens_per_batch: int | None = None,
    hookpoint: Hookpoint | None = None,
    n_examples: int = 3,
    on_batch: LatentSink | None = None,
    heads: HeadSums | None = None,
) -> tuple[LatentProfile, dict[str, Facets]]:
    """One pass over samples: what the latents do, and which label of each column they prefer.

    labels:    column -> one label for each sample; a column with a single label says nothing.
    hookpoint: where the coder reads the model; default, the model's first one.
    on_batch:  given the latents of every batch too; a sample's tokens come in one call.
    heads:     what the attention heads gave is added to it.
    Samples in the profile are positions in this list.
    """
    n_latents, index = coder.info.num_latents, model.hookpoints.index(hookpoint or model.hookpoint)
    n_vocab = 1 + max(int(sample.tokens.max(initial=0)) for sample in samples)
    profile = LatentStatistics(n_latents, n_vocab, n_examples)
    facets = {
        column: FacetCounts(n_latents, values)
        for column, values in (labels or {}).items()
        if len(set(values)) > 1
    }
    coder = coder.to(model.device)
    for batch in iter_activations(model, samples, tokens_per_batch):
        hidden = batch.at(index)
        latents = encode(coder, hidden)
        if heads is not None:
            heads.add(hidden, latents)
        acts, indices = latents.top_acts.cpu().numpy(), latents.top_indices.cpu().numpy()
        rows, positions = batch.rows[batch.sample_of_token], batch.positions
        profile.add(acts, indices, batch.token_ids, rows, positions)
        for counts in facets.values():
            counts.add(acts, indices, rows)
        if on_batch is not None:
            on_batch(acts, indices, rows, positions)
    return profile.profile(), {column: counts.facets() for column, counts in facets.items()}


def description_rows(
    profile: LatentProfile,
    samples: Sequence[Rendered],
    names: Sequence[str],
    renderer: Renderer,
    facets: Mapping[str, Facets] | None = None,
    lens: Lens | None = None,
    heads: HeadShares | None = None,
) -> list[dict[str, object]]:
    """Rows of `latents_file.SCHEMA` for every latent that fired.

    samples, names: what was profiled, and how each sample is called.
    facets, lens, heads: columns that are left out without them.
    """
    rows = []
    for latent in np.flatnonzero(profile.density > 0).tolist():
        tokens = _top_tokens(latent, profile, renderer)
        examples = _examples(latent, profile, samples, names, renderer)
        row: dict[str, object] = {
            "latent": latent,
            "description": describe(tokens, examples),
            "density": float(profile.density[latent]),
            "max_act": float(profile.max_act[latent]),
            "tokens": tokens,
            "examples": examples,
        }
        if facets is not None:
            row["facets"] = _preferences(latent, facets)
            row["description"] = "; ".join(
                [str(row["description"])]
                + [
                    f"{facet.lift[latent]:.1f}x in {facet.names[facet.label[latent]]}"
                    for facet in facets.values()
                    if facet.lift[latent] >= MIN_LIFT
                ]
            )
        if heads is not None:
            pairs = heads.strongest(latent)
            row["heads"] = [{"head": head, "share": share} for head, share in pairs]
            row["bias_share"] = float(heads.bias[latent])
            row["description"] = f"{row['description']}; {heads.words(latent)}"
        if lens is not None:
            row["promotes"] = _decoded(lens.top[latent].numpy(), renderer)
            row["suppresses"] = _decoded(lens.bottom[latent].numpy(), renderer)
            row["kurtosis"] = float(lens.kurtosis[latent])
        rows.append(row)
    return rows


def lens_of(coder: SparseCoder, model_folder: Path) -> Lens:
    """The SAE's logit lens in its model. Raises InputError where the model has no unembedding."""
    hookpoint = hookpoint_of(coder.info.hookpoint)
    if hookpoint is not None and hookpoint.site in _BESIDE_THE_STREAM:
        raise InputError(
            f"its decoder writes to {_BESIDE_THE_STREAM[hookpoint.site]}, not to the residual"
            " stream",
            field="sae",
            value=coder.info.hookpoint,
            remedy="Nothing needs to be done: latents are described without it.",
        )
    norm, unembedding = read_unembedding(model_folder)
    return logit_lens(coder.decoder_weight, norm, unembedding)


def _top_tokens(latent: int, profile: LatentProfile, renderer: Renderer) -> list[dict[str, object]]:
    columns = (profile.tokens, profile.token_share, profile.token_lift)
    return [
        {"token": renderer.decode(np.array([token], np.uint32)), "share": share, "lift": lift}
        for token, share, lift in zip(*(c[latent].tolist() for c in columns), strict=True)
        if token >= 0
    ]


def _examples(
    latent: int,
    profile: LatentProfile,
    samples: Sequence[Rendered],
    names: Sequence[str],
    renderer: Renderer,
) -> list[dict[str, object]]:
    columns = (profile.samples, profile.positions, profile.acts)
    return [
        {"example": names[sample], **_context(samples[sample], position, renderer), "act": act}
        for sample, position, act in zip(*(c[latent].tolist() for c in columns), strict=True)
        if sample >= 0
    ]


def _context(sample: Rendered, position: int, renderer: Renderer) -> dict[str, str]:
    """Content tokens around one of them, as text."""
    tokens: NDArray[np.uint32] = sample.tokens[sample.content_mask]
    start = max(0, position - BEFORE)
    return {
        "before": renderer.decode(tokens[start:position]),
        "token": renderer.decode(tokens[position : position + 1]),
        "after": renderer.decode(tokens[position + 1 : position + 1 + AFTER]),
    }


def describe(tokens: Sequence[dict[str, object]], examples: Sequence[dict[str, object]]) -> str:
    """One line: the tokens it prefers, and the context where it is strongest."""
    lifted = [token for token in tokens if float(str(token["lift"])) >= MIN_LIFT]
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


def _preferences(latent: int, facets: Mapping[str, Facets]) -> list[dict[str, object]]:
    return [
        {
            "column": column,
            "label": facet.names[facet.label[latent]],
            "share": float(facet.share[latent]),
            "lift": float(facet.lift[latent]),
        }
        for column, facet in facets.items()
        if facet.label[latent] >= 0
    ]


def _decoded(ids: "NDArray[np.int64]", renderer: Renderer) -> list[str]:
    return [renderer.decode(np.array([token], np.uint32)) for token in ids]
