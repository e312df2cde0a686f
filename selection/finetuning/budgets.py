"""Training tokens: what a ranking gives for a budget, and which samples make a step."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from selection.core.errors import InputError
from selection.evaluation.labelled import Rows
from selection.picking.controls import length_matched
from selection.records import Rendered

_CHUNK = 64  # Rows that are rendered at once.

Samples = Callable[[Rows], list[Rendered]]
"""Rows of the pool as the trainee reads them."""


def fill_budget(order: Rows, samples: Samples, budget: int) -> tuple[Rows, list[Rendered]]:
    """The longest prefix of a ranking that fits, and the beginning of the next row as its rest.

    So every arm trains on exactly `budget` tokens, and a smaller budget's rows are the first of a
    larger one's. Raises InputError where the ranking has fewer tokens.
    """
    taken: list[Rendered] = []
    left = budget
    for first in range(0, len(order), _CHUNK):
        for sample in samples(order[first : first + _CHUNK]):
            taken.append(first_tokens(sample, left))
            left -= len(taken[-1].tokens)
            if not left:
                return order[: len(taken)], taken
    raise InputError(
        f"the ranking has {budget - left:,} tokens, fewer than the budget",
        field="budget_tokens",
        value=budget,
        remedy="Give a smaller budget or a larger pool.",
    )


def first_tokens(sample: Rendered, n: int) -> Rendered:
    """A sample cut behind its first n tokens."""
    if len(sample.tokens) <= n:
        return sample
    return replace(
        sample, tokens=sample.tokens[:n], content_mask=sample.content_mask[:n], truncated=True
    )


def steps_of(lengths: Sequence[int], n_steps: int, seed: int) -> list[Rows]:
    """Positions of the samples of each step, in an order that seed and number alone decide.

    A step has about the same number of tokens as any other; every sample is in one step.
    """
    order = np.random.default_rng(seed).permutation(len(lengths))
    ends = np.cumsum(np.asarray(lengths, np.int64)[order])
    middle = ends - np.asarray(lengths, np.int64)[order] / 2
    step = np.minimum((middle * n_steps / ends[-1]).astype(np.int64), n_steps - 1)
    return [order[step == number] for number in range(n_steps) if (step == number).any()]


def of_equal_length(picked: Sequence[Rendered], order: Rows, samples: Samples) -> Rows:
    """Rows of a random order, as long as the picks one by one; each row at most once.

    order: random rows of the pool to choose from, many more than there are picks.
    """
    candidates = samples(order)
    lengths = np.array([len(each.tokens) for each in [*candidates, *picked]])
    eligible = np.arange(len(lengths)) < len(order)
    own = np.arange(len(order), len(lengths))
    return order[length_matched(own, lengths, -np.arange(len(lengths), dtype=np.float64), eligible)]
