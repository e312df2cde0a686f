"""Samples to stored vectors: one forward pass, latents aggregated over tokens, fixed point.

Input: rendered samples, a model, heads (hookpoint, SAE, aggregate). Output: `SparseRows` and a
`UnitReport` for each head; counts of tokens or words where no model is wanted.
"""
