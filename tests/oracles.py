"""Slow, obvious versions of what saelect does fast. Tests compare the two on values."""

from fractions import Fraction


def generalized_jaccard(
    a: dict[int, int], b: dict[int, int], weights: dict[int, int] | None = None
) -> Fraction:
    """Sum of minima over sum of maxima, as an exact fraction; 0 for two empty vectors."""
    latents = a.keys() | b.keys()
    weight = {f: 1 if weights is None else weights.get(f, 0) for f in latents}
    minima = sum(weight[f] * min(a.get(f, 0), b.get(f, 0)) for f in latents)
    maxima = sum(weight[f] * max(a.get(f, 0), b.get(f, 0)) for f in latents)
    return Fraction(minima, maxima) if maxima else Fraction(0)


def prototype_jaccard(
    candidate: dict[int, int],
    exemplars: list[dict[int, int]],
    weights: dict[int, int] | None = None,
) -> Fraction:
    """Generalized Jaccard with the mean of the exemplars, without rounding that mean."""
    latents = candidate.keys() | {f for exemplar in exemplars for f in exemplar}
    mean = {f: Fraction(sum(e.get(f, 0) for e in exemplars), len(exemplars)) for f in latents}
    weight = {f: 1 if weights is None else weights.get(f, 0) for f in latents}
    minima = sum(weight[f] * min(Fraction(candidate.get(f, 0)), mean[f]) for f in latents)
    maxima = sum(weight[f] * max(Fraction(candidate.get(f, 0)), mean[f]) for f in latents)
    return Fraction(minima, maxima) if maxima else Fraction(0)


def mean_of_fixed_points(scores: list[float]) -> float:
    """Mean of scores, each rounded half to even to a multiple of 2^-40 first."""
    total = sum(round(Fraction(score) * 2**40) for score in scores)
    return float(Fraction(total, len(scores) * 2**40))
