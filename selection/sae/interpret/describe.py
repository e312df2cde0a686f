"""Samples through model and SAE to descriptions of latents: tokens and contexts as text."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from selection.models.activations import ActivationModel
from selection.models.batching import iter_activations
from selection.models.hookpoints import Hookpoint
from selection.records import Rendered
from selection.rendering.renderer import Renderer
from selection.sae.coder import SparseCoder
from selection.sae.encode import encode
from selection.sae.interpret.facets import FacetCounts, Facets
from selection.sae.interpret.logit_lens import Lens, logit_lens, read_unembedding
from selection.sae.interpret.statistics import LatentProfile, LatentStatistics

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
    tokens: NDArray[np.uint32] = sample.tokens[sample.content_mask]
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


Sink = Callable[
    [NDArray[np.float32], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]], None
]
"""Takes values and latents (t, k) of t tokens, and of each its sample and place in it, (t,)."""

LEANS = 2.0  # from this lift on a label is part of the line for people


def profile_pool(
    samples: Sequence[Rendered],
    model: ActivationModel,
    coder: SparseCoder,
    n_vocab: int,
    labels: Mapping[str, Sequence[str]],
    tokens_per_batch: int | None,
    hookpoint: Hookpoint | None = None,
    also: Sink | None = None,
) -> tuple[LatentProfile, dict[str, Facets]]:
    """One pass: what the latents do, and which label of each column they lean to.

    labels:    column -> one label for each sample; a column with a single label says nothing.
    hookpoint: where the coder reads the model; default, the model's first one.
    also:      given the latents of every batch too; a sample's tokens come in one call.
    """
    place = model.hookpoints.index(hookpoint or model.hookpoint)
    profile = LatentStatistics(coder.info.num_latents, n_vocab)
    facets = {
        column: FacetCounts(coder.info.num_latents, values)
        for column, values in labels.items()
        if len(set(values)) > 1
    }
    coder = coder.to(model.device)
    for batch in iter_activations(model, samples, tokens_per_batch):
        found = encode(coder, batch.at(place))
        acts, latents = found.top_acts.cpu().numpy(), found.top_indices.cpu().numpy()
        rows = batch.rows[batch.sample_of_token]
        first = np.searchsorted(batch.sample_of_token, np.arange(len(batch.rows)))
        positions = np.arange(len(rows)) - first[batch.sample_of_token]
        profile.add(acts, latents, batch.token_ids, rows, positions)
        for counts in facets.values():
            counts.add(acts, latents, rows)
        if also is not None:
            also(acts, latents, rows, positions)
    return profile.profile(), {column: counts.facets() for column, counts in facets.items()}


def described(
    profile: LatentProfile,
    facets: Mapping[str, Facets],
    lens: Lens | None,
    samples: Sequence[Rendered],
    names: Sequence[str],
    renderer: Renderer,
) -> list[dict[str, object]]:
    """Rows of `latents_file.SCHEMA` for every latent that fired; see `description_rows`."""
    rows = description_rows(profile, samples, names, renderer)
    for row in rows:
        latent = int(str(row["latent"]))
        leanings = _leanings(latent, facets)
        row["facets"] = leanings
        told = [f"{f['lift']:.1f}x in {f['label']}" for f in leanings if _lift(f) >= LEANS]
        row["description"] = "; ".join([str(row["description"]), *told])
        if lens is not None:
            row["promotes"] = _tokens(lens.top[latent].numpy(), renderer)
            row["suppresses"] = _tokens(lens.bottom[latent].numpy(), renderer)
            row["kurtosis"] = float(lens.kurtosis[latent])
    return rows


def lens_of(coder: SparseCoder, model_folder: Path) -> Lens:
    """The SAE's logit lens in its model. Raises InputError where the model has no unembedding."""
    norm, unembedding = read_unembedding(model_folder)
    return logit_lens(coder.decoder_weight, norm, unembedding)


def _leanings(latent: int, facets: Mapping[str, Facets]) -> list[dict[str, object]]:
    return [
        {
            "column": column,
            "label": found.names[found.label[latent]],
            "share": float(found.share[latent]),
            "lift": float(found.lift[latent]),
        }
        for column, found in facets.items()
        if found.label[latent] >= 0
    ]


def _lift(facet: Mapping[str, object]) -> float:
    return float(str(facet["lift"]))


def _tokens(ids: "np.ndarray[tuple[int], np.dtype[np.int64]]", renderer: Renderer) -> list[str]:
    return [renderer.decode(np.array([token], np.uint32)) for token in ids]
