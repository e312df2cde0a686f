"""The one sparse autoencoder that every format becomes: encode, decode, measure.

Input: activations of width D. Output: active latents of each token, quality, and
whether it fits a model.
"""
