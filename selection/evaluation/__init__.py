"""How good a ranking is: with labels (measures), without (held-out exemplars, ranking depth).

IN scores or a `RankingInput`, labels where there are any. OUT measures with intervals.
"""
