"""How good a ranking is: with labels (nDCG), without (held-out exemplars, ranking depth); BM25.

IN scores or a `RankingInput`, labels where there are any. OUT measures with intervals.
"""
