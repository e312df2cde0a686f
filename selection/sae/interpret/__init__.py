"""What latents respond to: tokens, examples, labels of the samples, and the logit lens.

Input: rendered samples, a model and an SAE. Output: rows of `latents.parquet`.
"""
