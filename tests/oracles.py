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
