"""Baselines: other ways to score candidates against exemplars.

IN texts, token counts, dense or sparse vectors of pool and exemplars. OUT (n,) scores.
"""
