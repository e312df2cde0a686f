"""Slow, obvious versions of what saelect does fast. Tests compare the two on values."""

import math
from decimal import Decimal, localcontext
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


def idf_weight(document_frequency: int, n_documents: int) -> int:
    """ln((1 + n) / (1 + df)) in multiples of 2^-10, at least 1, by 50-digit decimals."""
    with localcontext(prec=50):
        ratio = Decimal(1 + n_documents) / Decimal(1 + document_frequency)
        return max(1, round(ratio.ln() * 1024))


def bm25_lucene(texts: list[list[str]], query: list[str], k1: float, b: float) -> list[float]:
    """BM25 of every text, Lucene form; a word counts as often as the query has it."""
    mean_length = sum(map(len, texts)) / len(texts)
    scores = []
    for text in texts:
        score = 0.0
        for word in query:
            df = sum(word in other for other in texts)
            idf = math.log(1 + (len(texts) - df + 0.5) / (df + 0.5))
            tf = text.count(word)
            score += idf * tf / (tf + k1 * (1 - b + b * len(text) / mean_length))
        scores.append(score)
    return scores


def joined_vector(
    parts: list[dict[int, int]],
    weights: list[list[int]],
    space_weights: list[int],
    normalize: bool,
    lengths: list[int] | None = None,
) -> dict[int, int]:
    """Vectors of several spaces as one, columns counted on from space to space.

    lengths: average lengths that become 2^18, instead of every vector's own that becomes 2^20.
    """
    whole: dict[int, int] = {}
    first = 0
    for number, (part, weight, factor) in enumerate(
        zip(parts, weights, space_weights, strict=True)
    ):
        total = sum(weight[c] * value for c, value in part.items())
        for c, value in part.items():
            amount = weight[c] * value
            if normalize and lengths:
                length = max(lengths[number], math.ceil(Fraction(total, 256)))
                amount = math.floor(Fraction(amount * 2**18, length))
            elif normalize:
                amount = math.floor(Fraction(amount * 2**20, total)) if total else 0
            whole[first + c] = amount * factor
        first += len(weight)
    return {column: amount for column, amount in whole.items() if amount}


def round_robin(scores: list[list[float]]) -> list[int]:
    """Candidates in the order in which exemplars take them; scores[i][j] of candidate i."""
    order: list[int] = []
    while len(order) < len(scores):
        for j in range(len(scores[0])):
            free = [i for i in range(len(scores)) if i not in order]
            if free:
                order.append(max(free, key=lambda i: (scores[i][j], -i)))
    return order
