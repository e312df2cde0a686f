"""Proof by fine-tuning: whether a model gets better when it is trained on a selection.

IN a labelled pool, rankings of its rows, a causal model. OUT measures a row, gains with intervals.
"""
