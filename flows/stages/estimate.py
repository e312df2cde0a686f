"""`saelect run --dry-run`: what a run would read, drop, compute, write and cost.

Reading and rendering are done for real and kept, since a run needs them anyway; the forward pass
is timed on a few real batches. Nothing is selected.
"""

import time
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from flows.config.jobs import SelectConfig, VectorJob
from flows.orchestration import terminal
from flows.orchestration.terminal import say
from flows.stages import estimate as dry_run
from flows.stages.prepare.inputs import eligible_examples, prepare, read_targets
from flows.stages.prepare.render import open_model_input, render, sae_path
from flows.stages.represent.representer import (
    BYTES_PER_POSTING,
    Representer,
    first_of_each,
    missing_rows,
    open_representer,
    represent_samples,
)
from flows.stages.represent.sae import trained_folder
from flows.stages.represent.spaces import representers_of
from flows.stages.validate import check_config
from selection.data.drops import drop_lines
from selection.models.activations import ActivationModel, load_activation_model
from selection.models.batching import iter_activations, needed_lengths, tokens_to_run
from selection.sae.encode import chunks
from selection.sae.formats.find import family_of
from storage.files.atomic import free_bytes
from storage.files.workspace import Workspace
from storage.pools.renderings import RenderedPool

PROBES = 4
PROBE_EXAMPLES = 96
BYTES_PER_ROW = 24  # key and offset
MANIFEST_BYTES = 2_000  # of a unit's manifest and array headers


@dataclass(frozen=True)
class Estimate:
    """What the missing vectors will cost.

    seconds:  (low, middle, high) of the forward pass and the encoding.
    n_bytes:  of the shards that will be written.
    tokens:   of the samples.
    """

    seconds: tuple[float, float, float]
    n_bytes: int
    tokens: "Tokens"


class Tokens(NamedTuple):
    """needed: up to the last counted token of each sample; run: of these, by the model."""

    needed: int
    run: int


def print_dry_run(config: SelectConfig, workspace: Workspace) -> None:
    """Print the plan of a run."""
    check_config(config, workspace)
    targets = read_targets(config.exemplars)
    pool = prepare(config, workspace)
    eligibility = eligible_examples(config, pool, targets)
    rendered = render(workspace, pool, open_model_input(config))
    totals = rendered.totals
    say("\nWhat a run would do")
    say(f"  rows       {pool.n_rows:,} read, {pool.n_examples:,} unique examples")
    for line in drop_lines(
        pool.drops | {str(reason): n for reason, n in eligibility.drops.items()}, pool.first_drops
    ):
        say(f"  dropped    {line}")
    truncated = totals["n_truncated"] / max(1, pool.n_examples)
    say(f"  eligible   {int(eligibility.eligible.sum()):,}")
    say(f"  tokens     {totals['n_tokens']:,}, {totals['n_counted']:,} of them counted")
    say(f"  truncated  {totals['n_truncated']:,} examples ({truncated:.1%}), response cut away"
        f" whole in {totals['n_response_lost']:,}")  # fmt: skip
    if config.sae.train is not None and not _is_trained(config, workspace):
        _print_training_cost(config, rendered)
        return
    _print_cost(config, workspace, rendered)


def _is_trained(config: SelectConfig, workspace: Workspace) -> bool:
    settings = config.sae.train
    model_input = open_model_input(config)
    return (
        settings is not None
        and family_of(trained_folder(settings, config, workspace.saes, model_input)) is not None
    )


def _print_training_cost(config: SelectConfig, rendered: RenderedPool) -> None:
    """Without its SAE a run's cost is known in part: the forward passes."""
    settings, model_input = config.sae.train, open_model_input(config)
    if settings is None:
        return
    model = load_activation_model(
        model_input.model,
        model_input.hookpoint,
        device=config.model.device,
        dtype=config.model.dtype,
        threads=config.compute.threads,
        packing=config.compute.packing,
        share_prefixes=config.compute.share_prefixes,
    )
    rows, per_batch = first_of_each(rendered), config.compute.tokens_per_batch
    rates = []
    for probe in range(PROBES + 1):
        chosen = rows[probe :: max(1, len(rows) // PROBE_EXAMPLES)][:PROBE_EXAMPLES]
        samples = rendered.samples(chosen)
        started = time.perf_counter()
        for _ in iter_activations(model, samples, per_batch):
            pass
        seconds = time.perf_counter() - started
        rates.append(tokens_to_run(model, samples, per_batch) / seconds)
    rate = float(np.median(rates[1:]))  # The first one warms the caches up.
    training = settings.tokens / rate
    pool = _tokens_to_run(model, config, rendered, rows).run / rate
    say(f"  sae        would be trained on {settings.tokens:,} tokens first")
    say(f"  time       about {_duration(training)} of forward passes for it, and {_duration(pool)}")
    say("             for the pool; the SAE's own steps and encoding come on top")


def _print_cost(config: SelectConfig, workspace: Workspace, rendered: RenderedPool) -> None:
    model_input = open_model_input(config)
    settings = config.sae.train
    trained = settings and trained_folder(settings, config, workspace.saes, model_input)
    representer = open_representer(config, workspace, str(trained or sae_path(config)))
    found = [(each, missing_rows(each, rendered)) for each in representers_of(config, representer)]
    lacking = [each for each, rows in found if len(rows)]
    missing = max((rows for _, rows in found), key=len)
    n_cached = rendered.n_usable - len(missing)
    spaces = f", each in {len(lacking)} spaces" if len(lacking) > 1 else ""
    say(f"  cached     {n_cached:,} vectors are there, {len(missing):,} would be computed{spaces}")
    free = free_bytes(workspace.root)
    if not len(missing):
        say(f"  disk       nothing new for vectors; {_size(free)} free")
        say("  time       no forward pass over the pool; ranking takes seconds")
        return
    cost = estimate(lacking, rendered, missing)
    say(f"  forward    {_forward(cost.tokens, int(rendered.lengths()[missing].sum()))}")
    low, middle, high = (_duration(seconds) for seconds in cost.seconds)
    say(f"  disk       about {_size(cost.n_bytes)} of vectors; {_size(free)} free")
    say(
        f"  time       about {middle} for the vectors ({low} to {high}, from {PROBES} real batches)"
    )


def estimate(
    representers: list[Representer], rendered: RenderedPool, missing: NDArray[np.int64]
) -> Estimate:
    """Time and size of the missing vectors, from a few samples spread over them.

    representers: of one run, which share a pass. missing: rows of the pool, ascending.
    """
    config, model = representers[0].config, representers[0].model
    for each in representers:
        each.unit  # noqa: B018 - loading and calibrating are not part of the rate
    rates, postings = [], []
    for probe in range(PROBES + 1):
        rows = missing[probe :: max(1, len(missing) // PROBE_EXAMPLES)][:PROBE_EXAMPLES]
        samples = rendered.samples(rows)
        started = time.perf_counter()
        found = represent_samples(representers, samples)
        seconds = time.perf_counter() - started
        if probe:  # The first one warms the caches up.
            n_ran = tokens_to_run(model, samples, config.compute.tokens_per_batch)
            rates.append(n_ran / seconds)
            postings.append(sum(len(vectors.latents) for vectors, _ in found) / len(rows))
    tokens = _tokens_to_run(model, config, rendered, missing)
    fast, typical, slow = max(rates), float(np.median(rates)), min(rates)
    n_rows = len(missing) * len(representers)
    n_bytes = len(missing) * float(np.mean(postings)) * BYTES_PER_POSTING
    n_bytes += n_rows * BYTES_PER_ROW + len(representers) * MANIFEST_BYTES
    # Machines slow down under sustained load; the upper end allows for a third more.
    range_of = (tokens.run / fast, tokens.run / typical, 1.3 * tokens.run / slow)
    return Estimate(range_of, int(n_bytes), tokens)


def _tokens_to_run(
    model: ActivationModel, config: VectorJob, rendered: RenderedPool, rows: NDArray[np.int64]
) -> Tokens:
    """Of pool rows, ascending, in the units in which they would be computed."""
    compute, needed, run = config.compute, 0, 0
    order = rendered.in_token_order(rows) if model.shares else rows
    for part in chunks(len(order), compute.unit_examples):
        samples = rendered.samples(order[part])
        needed += int(needed_lengths(samples, model.is_causal).sum())
        run += tokens_to_run(model, samples, compute.tokens_per_batch)
    return Tokens(needed, run)


def _forward(tokens: Tokens, n_all: int) -> str:
    """How many tokens are run, and what the others are."""
    spared = []
    if tokens.run < tokens.needed:
        spared.append(f"{tokens.needed - tokens.run:,} are beginnings that others share")
    if tokens.needed < n_all:
        spared.append(f"{n_all - tokens.needed:,} stand behind the last one that counts")
    said = f"{tokens.run:,} of {n_all:,} tokens are run"
    return f"{said}: {', '.join(spared)}" if spared else said


def _size(n_bytes: int) -> str:
    if n_bytes < 1e9:
        return f"{n_bytes / 1e6:,.1f} MB"
    return f"{n_bytes / 1e9:,.1f} GB"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def plan_lines(config: SelectConfig, workspace: Workspace) -> list[str]:
    """What a run would read, drop, compute, write and cost. Raises InputError."""
    with terminal.collected() as lines:
        dry_run.print_dry_run(config, workspace)
    return lines
