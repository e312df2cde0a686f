"""Latents described on a pool: tokens and examples, the logit lens, and what they lean to."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from selection.activations import ActivationModel
from selection.batching import iter_activations
from selection.models import Hookpoint
from selection.records import Rendered
from selection.rendering import Renderer
from selection.sae.coder import SparseCoder
from selection.sae.describe import LatentProfile, LatentStatistics
from selection.sae.describe_samples import description_rows
from selection.sae.encode import encode
from selection.sae.facets import FacetCounts, Facets
from selection.sae.lens import Lens, logit_lens, read_unembedding

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
