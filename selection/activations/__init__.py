"""Tokens to activations: a language model, cut off above the hookpoints, and run in batches.

Input: a resolved model, rendered samples (token ids and the mask of content tokens).
Output: batches of activations at the hookpoints, token by token.
"""
