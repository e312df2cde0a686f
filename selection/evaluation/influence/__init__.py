"""Baselines that train a model a little: gradients of candidates (LESS), drops of their loss.

IN a causal language model, samples as it reads them. OUT losses, or one projected gradient each.
"""
