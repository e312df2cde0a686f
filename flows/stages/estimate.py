"""Estimate of a run: what it would read, drop, compute, write and cost. Nothing is selected.

Reading and rendering are done for real and kept, since a run needs them anyway; the forward pass
is timed on a few real batches.
"""

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from flows.config.jobs import SelectConfig, VectorJob
from flows.stages.prepare.inputs import ineligible_lines, prepare
from flows.stages.prepare.render import render
from flows.stages.represent.representer import (
    Representer,
    missing_rows,
    open_model,
    represent_samples,
    representer_in,
)
from flows.stages.represent.sae import existing_sae
from flows.stages.represent.spaces import representers_of
from flows.stages.represent.units import BYTES_PER_POSTING
from flows.stages.session import Session, open_session
from flows.stages.validate import check_config
from selection.activations.batching import iter_activations, needed_lengths, tokens_to_run
from selection.activations.model import ActivationModel
from selection.data.remedies import drop_lines
from selection.records import Rendered
from selection.sae.encode import chunks
from selection.similarity.sources import VectorNumbers
from storage.files.atomic import free_bytes
from storage.files.workspace import Workspace
from storage.pools.renderings import RenderedPool

PROBES = 4
PROBE_EXAMPLES = 96
BYTES_PER_ROW = 24  # key and offset
MANIFEST_BYTES = 2_000  # of a unit's manifest and array headers


@dataclass(frozen=True)
class Tokens:
    """total: of the samples. needed: up to the last content token of each. run: by the model."""

    total: int
    needed: int
    run: int


@dataclass(frozen=True)
class VectorCost:
    """What the missing vectors will cost.

    seconds: (low, middle, high) of the forward pass and the encoding. n_bytes: of the shards.
    """

    seconds: tuple[float, float, float]
    n_bytes: int
    tokens: Tokens


def keep_top_that_fits(n_vectors: int, n_bytes: int, n_free_bytes: int) -> int | None:
    """The power of two of latents to keep of each vector so that half of the disk stays free.

    n_bytes: of the vectors with all their latents; None where these leave half of it free.
    """
    room = n_free_bytes / 2
    if n_bytes <= room:
        return None
    most = (room / n_vectors - BYTES_PER_ROW) / BYTES_PER_POSTING
    return 1 << max(0, int(most).bit_length() - 1) if most >= 1 else 1


@dataclass(frozen=True)
class TrainingCost:
    """Of an SAE that is to be trained first: its tokens, and seconds of forward passes."""

    n_tokens: int
    seconds: float
    seconds_of_pool: float


@dataclass(frozen=True)
class Estimate:
    """What a run would do.

    drops:    a line for each reason for which rows or examples are dropped before ranking.
    totals:   tokens of the rendered pool, as in `RenderedPool.totals`.
    training: None where the SAE is there; else vectors are unknown.
    n_missing, n_spaces: vectors of the pool to compute, in how many spaces. n_cached: those there.
    vectors:  their cost; None where nothing is missing.
    """

    n_rows: int
    n_examples: int
    drops: Sequence[str]
    n_eligible: int
    totals: Mapping[str, int]
    n_free_bytes: int
    training: TrainingCost | None = None
    n_cached: int = 0
    n_missing: int = 0
    n_spaces: int = 0
    vectors: VectorCost | None = None


def estimate_run(config: SelectConfig, workspace: Workspace) -> Estimate:
    """The estimate of a run. Raises InputError for what a run would refuse."""
    with open_session(config, workspace) as session:
        check_config(config, workspace)
        pool = prepare(config, workspace)
        eligibility = session.eligibility(pool.pool_id)
        rendered = render(workspace, pool, session.model_input)
        drops = drop_lines(pool.drops, pool.first_drops) + ineligible_lines(pool, eligibility)
        free = free_bytes(workspace.root)
        known = (pool.n_rows, pool.n_examples, drops, eligibility.n, rendered.totals, free)
        sae = existing_sae(session)
        if sae is None:
            return Estimate(*known, training=_training_cost(session, rendered))
        representers = representers_of(config, representer_in(session, sae))
        missing_of = [missing_rows(each, rendered) for each in representers]
        lacking = [r for r, rows in zip(representers, missing_of, strict=True) if len(rows)]
        missing = max(missing_of, key=len)
        return Estimate(
            *known,
            n_cached=rendered.n_usable - len(missing),
            n_missing=len(missing),
            n_spaces=len(lacking),
            vectors=estimate_vectors(lacking, rendered, missing) if len(missing) else None,
        )


def estimate_vectors(
    representers: Sequence[Representer], rendered: RenderedPool, missing: VectorNumbers
) -> VectorCost:
    """Time and size of the missing vectors, from a few samples spread over them.

    representers: of one run, which share a pass. missing: rows of the pool, ascending.
    """
    config, model = representers[0].config, representers[0].model
    for each in representers:
        each.unit  # noqa: B018 - loading and calibrating are not part of the rate
    rates, postings = [], []
    for number, samples in enumerate(_probes(rendered, missing)):
        started = time.perf_counter()
        parts = represent_samples(representers, samples)
        seconds = time.perf_counter() - started
        if number:  # the first one warms the caches up
            n_run = tokens_to_run(model, samples, config.compute.tokens_per_batch)
            rates.append(n_run / seconds)
            postings.append(sum(len(vectors.latents) for vectors, _ in parts) / len(samples))
    tokens = count_tokens(model, config, rendered, missing)
    fast, typical, slow = max(rates), statistics.median(rates), min(rates)
    n_rows = len(missing) * len(representers)
    n_bytes = len(missing) * statistics.fmean(postings) * BYTES_PER_POSTING
    n_bytes += n_rows * BYTES_PER_ROW + len(representers) * MANIFEST_BYTES
    # Machines slow down under sustained load; the upper end allows for a third more.
    seconds_range = (tokens.run / fast, tokens.run / typical, 1.3 * tokens.run / slow)
    return VectorCost(seconds_range, int(n_bytes), tokens)


def count_tokens(
    model: ActivationModel, config: VectorJob, rendered: RenderedPool, rows: VectorNumbers
) -> Tokens:
    """Of pool rows, ascending, in the units in which they would be computed."""
    compute, needed, run = config.compute, 0, 0
    order = rendered.in_token_order(rows) if model.shares else rows
    for part in chunks(len(order), compute.unit_examples):
        samples = rendered.samples(order[part])
        needed += int(needed_lengths(samples, model.is_causal).sum())
        run += tokens_to_run(model, samples, compute.tokens_per_batch)
    return Tokens(int(rendered.lengths()[rows].sum()), needed, run)


def _training_cost(session: Session, rendered: RenderedPool) -> TrainingCost:
    """Without its SAE a run's cost is known in part: the forward passes."""
    config, settings = session.config, session.config.sae.train
    assert settings is not None
    model_input = session.model_input
    model = open_model(config, session.workspace, model_input.model, [model_input.hookpoint])
    rows, per_batch, rates = rendered.first_rows(), config.compute.tokens_per_batch, []
    for samples in _probes(rendered, rows):
        started = time.perf_counter()
        for _ in iter_activations(model, samples, per_batch):
            pass
        rates.append(tokens_to_run(model, samples, per_batch) / (time.perf_counter() - started))
    rate = statistics.median(rates[1:])  # the first one warms the caches up
    n_run = count_tokens(model, config, rendered, rows).run
    n_tokens = 0 if settings.architecture == "vocabulary" else settings.tokens
    return TrainingCost(n_tokens, n_tokens / rate, n_run / rate)


def _probes(rendered: RenderedPool, rows: VectorNumbers) -> Iterator[list[Rendered]]:
    """PROBES + 1 lists of samples, spread over the rows, of which there is at least one."""
    for number in range(PROBES + 1):
        chosen = rows[number % len(rows) :: max(1, len(rows) // PROBE_EXAMPLES)][:PROBE_EXAMPLES]
        yield rendered.samples(chosen)
