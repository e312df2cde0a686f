"""Rivals that train the model a little: gradients of candidates (LESS), and how their loss drops.

IN a causal language model, samples as it reads them. OUT losses, or one projected gradient each.
"""
