"""Scores to decided selections, and the label-free check of them.

IN config, pool, vectors, targets. OUT `Selection`, `TargetCheck`.
"""
