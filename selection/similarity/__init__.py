"""Generalized Jaccard of candidates and exemplars: weights, joined spaces, scores, explanations.

IN vectors of pool and exemplars (`SparseRows`, sources of blocks). OUT (n,) scores, explanations.
"""
