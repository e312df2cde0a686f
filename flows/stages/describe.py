"""Descriptions of the latents of a config's SAE, made on its pool and kept in the workspace."""

import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from flows.config.jobs import SelectConfig, VectorJob
from flows.orchestration.progress import stage
from flows.stages.prepare.inputs import prepare
from flows.stages.prepare.render import render
from flows.stages.represent.representer import Representer, representer_in
from flows.stages.represent.sae import existing_sae
from flows.stages.session import Session, session_of
from selection.core.errors import InputError
from selection.core.hashing import content_id
from selection.core.numbers import plural
from selection.core.redaction import without_secrets
from selection.evaluation.label_free import sample_rows
from selection.models.hookpoints import hookpoint_of
from selection.records import Rendered
from selection.sae.interpret.explanations import Dictionary, Explanations, read_explanations
from selection.sae.interpret.latents_file import (
    FILE,
    add_explanations,
    explanation_words,
    read_descriptions,
    write_latents,
)
from selection.sae.metadata import SaeInfo
from storage.export.delphi import WINDOW, LatentSpill, delphi_cache, ensure_unused
from storage.files.atomic import write_atomically, write_json
from storage.files.workspace import EXPLANATIONS, TARGET_QUALITY, Workspace

if TYPE_CHECKING:
    from selection.sae.interpret.statistics import LatentProfile
    from selection.sae.interpret.target_quality import TargetQuality

log = logging.getLogger(__name__)

COLUMNS = ("source", "language", "group")


def describe_latents(
    config: VectorJob,
    workspace: Workspace,
    n_samples: int,
    delphi: Path | None = None,
    window: int = WINDOW,
    latents: Sequence[int] = (),
) -> Path:
    """Describe the latents on the first samples of the pool; returns the file.

    delphi: an empty or new folder for what they did there, as a cache that delphi reads.
    window: tokens of an example in that cache.
    latents: those that will be shown.

    The pool is in the order of a content hash, so its first samples are a random sample. Raises
    InputError where an SAE that is to be trained was not trained yet, `delphi` is in use, or the
    SAE has no such latent.
    """
    if delphi is not None:
        ensure_unused(delphi)
    representer = _representer(session_of(config, workspace), latents)
    pool = prepare(config, workspace)
    rendered = render(workspace, pool, representer.model_input)
    rows = rendered.first_usable(n_samples)
    names = [str(i) for i in pool.examples_at(rows)["example_id"].to_pylist()]
    samples, labels = rendered.samples(rows), pool.first_labels(rows, COLUMNS)
    with stage("describe", len(samples), "samples") as handle:
        with _cache(representer, samples, names, delphi, window) as cache:
            profile, descriptions = _described(representer, samples, names, labels, cache)
        handle.advance(len(samples))
        handle.detail = (
            f"{len(descriptions):,} of {representer.sae.info.num_latents:,} latents are active"
        )
    file = workspace.described(representer.sae.info.sae_id) / FILE
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(
        file, lambda temp: write_latents(temp, descriptions, _about(representer, profile))
    )
    return file


def import_explanations(config: VectorJob, workspace: Workspace, path: Path) -> Explanations:
    """Keep what others wrote about the SAE's latents; it replaces what is there of that source.

    path: see `read_explanations`. Needs no weights where the SAE's hash is remembered. Raises
    InputError for what is not of this SAE, and keeps nothing then.
    """
    representer = _representer(session_of(config, workspace), ())
    info = representer.sae.info
    own = hookpoint_of(info.hookpoint)
    hookpoints = [representer.model_input.hookpoint, *([own] if own else [])]
    read = read_explanations(path, Dictionary(hookpoints, info.num_latents))
    file = workspace.described(info.sae_id) / EXPLANATIONS
    file.parent.mkdir(parents=True, exist_ok=True)
    sha256 = str(info.sha256)
    write_atomically(file, lambda temp: add_explanations(file, temp, read, sha256))
    return read


def measure_targets(
    config: SelectConfig, workspace: Workspace, n_drawn: int = 256
) -> dict[str, tuple["TargetQuality", list[str]]]:
    """Target -> how much of it the SAE's latents carry, and the best of these in words.

    It is kept in the workspace, where reports of runs with this SAE and these exemplars show it.

    n_drawn: samples of the pool that the exemplars are told from; a seeded draw of the eligible.
    Raises InputError for targets of one exemplar, and a pool that is too small.
    """
    # It imports torch.
    from selection.sae.interpret.target_quality import pool_samples

    session = session_of(config, workspace)
    representer, targets = _representer(session, ()), session.targets
    samples = {
        name: [sample for sample in session.samples(table) if sample.content_mask.any()]
        for name, table in targets.items()
    }
    for name, each in samples.items():
        if len(each) < 2:
            remedy = "Give it two exemplars with content, better eight or more."
            raise InputError("too few to hold one out", field="target", value=name, remedy=remedy)
    pool = prepare(config, workspace)
    rendered = render(workspace, pool, representer.model_input)
    eligible = session.eligibility(pool.pool_id).eligible & rendered.usable()
    drawn = rendered.samples(sample_rows(eligible, n_drawn, config.seed))
    if len(drawn) < 2:
        remedy = "Take a larger pool."
        raise InputError(
            "too few samples can be drawn", field="pool", value=len(drawn), remedy=remedy
        )
    everything = [*drawn, *(sample for each in samples.values() for sample in each)]
    with stage("target quality", len(everything), "samples") as handle:
        pooled = pool_samples(
            everything,
            representer.model,
            representer.sae.coder,
            representer.model_input.hookpoint,
            config.compute.tokens_per_batch,
        )
        handle.advance(len(everything))
    hints, measured, first = _hints(workspace, representer.sae.info), {}, len(drawn)
    for name, each in samples.items():
        rows = np.arange(first, first + len(each))
        quality, first = pooled.quality(rows, np.arange(len(drawn))), first + len(each)
        latents = pooled.numbers[list(quality.best)].tolist()
        words = [f"latent {n}  {hints.get(n) or 'not described'}" for n in latents]
        measured[name] = (quality, words)
    _keep(representer, {name: (targets[name], each) for name, (each, _) in measured.items()})
    return measured


def _keep(
    representer: Representer, measured: Mapping[str, tuple[pa.Table, "TargetQuality"]]
) -> None:
    """Keep what was measured for reports, in place of what is there of the SAE."""
    info = representer.sae.info
    file = representer.workspace.described(info.sae_id) / TARGET_QUALITY
    file.parent.mkdir(parents=True, exist_ok=True)
    rows = {
        name: {
            "exemplars": content_id(sorted(table["example_id"].to_pylist())),
            "n_exemplars": quality.n_exemplars,
            "n_drawn": quality.n_drawn,
            "kept": quality.kept,
            "rows": [
                {"name": label, "auc": auc, "interval": quality.interval(auc), "share": share}
                for label, auc, share in auc_rows(quality)
            ],
        }
        for name, (table, quality) in measured.items()
    }
    hookpoint = str(representer.model_input.hookpoint)
    write_json(file, {"sae": info.sha256, "hookpoint": hookpoint, "targets": rows})


def auc_rows(quality: "TargetQuality") -> list[tuple[str, float, float | None]]:
    """(what tells the target from the pool, its AUC, share of the way to the activations)."""
    latents = [
        (plural(n, "latent"), auc, quality.share(n)) for n, auc in quality.latents_auc.items()
    ]
    return [("activations", quality.probe_auc, None), *latents]


def _hints(workspace: Workspace, sae: SaeInfo) -> dict[int, str]:
    """Latents in words: by others, else as they were described here or by the SAE's own folder."""
    home = workspace.described(sae.sae_id)
    own = (read_descriptions(folder, sae.sha256) for folder in (home, Path(sae.path)))
    others = explanation_words(home / EXPLANATIONS)
    words = {latent: "; ".join(each) for latent, each in others.items()}
    return next((each for each in own if each), {}) | words


def _representer(session: Session, latents: Sequence[int]) -> Representer:
    """The config's, with an SAE that is there and has these latents. Raises InputError."""
    sae = existing_sae(session)
    if sae is None:
        raise InputError(
            "this SAE was not trained yet",
            field="sae.train",
            remedy="Run `saelect train-sae CONFIG` first.",
        )
    representer = representer_in(session, sae)
    n_latents = representer.sae.info.num_latents
    for latent in latents:
        if not 0 <= latent < n_latents:
            raise InputError(
                "the SAE has no such latent",
                field="--latent",
                value=latent,
                remedy=f"Its latents are 0 to {n_latents - 1}.",
            )
    return representer


def _described(
    representer: Representer,
    samples: list[Rendered],
    names: list[str],
    labels: dict[str, list[str]],
    cache: LatentSpill | None,
) -> "tuple[LatentProfile, list[dict[str, object]]]":
    """What the latents did on the samples, and a row for each that is active; see `_cache`."""
    # It imports torch.
    from selection.sae.interpret.describe import description_rows, lens_of, profile_latents
    from selection.sae.interpret.head_shares import head_sums

    model_input, coder = representer.model_input, representer.sae.coder
    heads = head_sums(coder, model_input.hookpoint, model_input.model.n_heads)
    profile, facets = profile_latents(
        samples,
        representer.model,
        coder,
        labels=labels,
        tokens_per_batch=representer.config.compute.tokens_per_batch,
        hookpoint=model_input.hookpoint,
        on_batch=None if cache is None else cache.add,
        heads=heads,
    )
    if cache is not None and cache.n_clipped:
        log.warning(
            "%d activations are larger than float16 can say, in which delphi keeps them: they"
            " became its largest number",
            cache.n_clipped,
        )
    lens = None
    if model_input.model.kind == "causal":
        try:
            lens = lens_of(coder, model_input.model.path)
        except InputError as error:
            log.warning("no logit lens: %s", error)
    shares = None if heads is None else heads.shares()
    renderer = model_input.renderer
    return profile, description_rows(profile, samples, names, renderer, facets, lens, shares)


def _cache(
    representer: Representer,
    samples: list[Rendered],
    names: list[str],
    folder: Path | None,
    window: int,
) -> AbstractContextManager[LatentSpill | None]:
    """What the samples' latents are handed to, so that delphi can read them; None without folder.

    names: example ids of the samples.
    """
    if folder is None:
        return nullcontext()
    model_input, config = representer.model_input, representer.config
    local = model_input.model.revision is None
    return delphi_cache(
        folder,
        representer.model.module_name(model_input.hookpoint),
        [sample.tokens[sample.content_mask] for sample in samples],
        names,
        n_latents=representer.sae.info.num_latents,
        window=window,
        pad=model_input.renderer.pad_id,
        about={
            "dataset_repo": without_secrets(", ".join(pool.path for pool in config.pool)),
            "model_name": str(model_input.model.path.absolute())
            if local
            else model_input.model.name,
            "model_revision": model_input.model.revision,
            "sae_sha256": representer.sae.info.sha256,
            "sae_scale": config.sae.scale,
            "hookpoint": str(model_input.hookpoint),
            "rendering": model_input.renderer.settings,
        },
    )


def _about(representer: Representer, profile: "LatentProfile") -> dict[str, object]:
    info, model = representer.sae.info, representer.model_input.model
    return {
        "sae_sha256": info.sha256,
        "model_sha256": model.weights_sha256,
        "hookpoint": str(representer.model_input.hookpoint),
        "n_tokens": profile.n_tokens,
        "n_latents": info.num_latents,
    }
