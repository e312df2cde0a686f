"""An estimate as lines, for `saelect run --dry-run` and for the page of a dry run."""

from flows.stages.estimate import PROBES, Estimate, Tokens, VectorCost, keep_top_that_fits
from selection.core.numbers import duration, size

LARGE_POOL = 1_000_000


def estimate_lines(estimate: Estimate) -> list[str]:
    """What a run would read, drop, compute, write and cost."""
    totals, n_examples = estimate.totals, estimate.n_examples
    n_truncated = totals["n_truncated"]
    return [
        "What a run would do",
        f"  rows       {estimate.n_rows:,} read, {n_examples:,} unique examples",
        *(f"  dropped    {line}" for line in estimate.drops),
        f"  eligible   {estimate.n_eligible:,}",
        f"  tokens     {totals['n_tokens']:,}, {totals['n_counted']:,} of them content",
        f"  truncated  {n_truncated:,} examples ({n_truncated / max(1, n_examples):.1%}),"
        f" whole response lost in {totals['n_response_lost']:,}",
        *_cost_lines(estimate),
    ]


def _cost_lines(estimate: Estimate) -> list[str]:
    training, vectors = estimate.training, estimate.vectors
    if training is not None:
        return [
            f"  sae        would be trained on {training.n_tokens:,} tokens first",
            f"  time       about {duration(training.seconds)} of forward passes for it, and"
            f" {duration(training.seconds_of_pool)}",
            "             for the pool; the SAE's own steps and encoding are not included",
        ]
    spaces = f", each in {estimate.n_spaces} spaces" if estimate.n_spaces > 1 else ""
    free = size(estimate.n_free_bytes)
    cached = f"  cached     {estimate.n_cached:,} vectors are there"
    if vectors is None:
        return [
            f"{cached}, 0 would be computed",
            f"  disk       nothing new for vectors; {free} free",
            "  time       no forward pass over the pool; ranking takes seconds",
        ]
    low, middle, high = (duration(seconds) for seconds in vectors.seconds)
    time_range = f"{low} to {high}, from {PROBES} real batches"
    return [
        f"{cached}, {estimate.n_missing:,} would be computed{spaces}",
        f"  forward    {_forward(vectors.tokens)}",
        f"  disk       about {size(vectors.n_bytes)} of vectors; {free} free",
        *_keep_top(estimate, vectors),
        f"  time       about {middle} for the vectors ({time_range})",
    ]


def _keep_top(estimate: Estimate, vectors: VectorCost) -> list[str]:
    """Whether all latents of a sample can be kept: said of large pools, and of those too large."""
    n_vectors = estimate.n_missing * estimate.n_spaces
    fits = keep_top_that_fits(n_vectors, vectors.n_bytes, estimate.n_free_bytes)
    if fits is not None:
        return [
            "  keep_top   these would fill more than half of the disk: with `representation:"
            f" {{keep_top: {fits}}}`",
            "             they would not (docs/benchmarks/keep-top.md says what that costs)",
        ]
    large = n_vectors >= LARGE_POOL
    return ["  keep_top   as set: more than half of the disk stays free"] if large else []


def _forward(tokens: Tokens) -> str:
    """How many tokens are run, and why the others are not."""
    reasons = []
    if tokens.run < tokens.needed:
        reasons.append(f"{tokens.needed - tokens.run:,} tokens saved by shared prefixes")
    if tokens.needed < tokens.total:
        n_after = tokens.total - tokens.needed
        reasons.append(f"{n_after:,} tokens after the last content token are not run")
    line = f"{tokens.run:,} of {tokens.total:,} tokens are run"
    return f"{line}: {', '.join(reasons)}" if reasons else line
