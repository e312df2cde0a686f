"""Training of SAEs (TopK to matching pursuit), semi-NMF and codebooks, resumable.

A training that was stopped ends in the same bytes.
Input: batches of activations and `TrainSettings`. Output: a `SparseCoder` and a `TrainReport`.
"""
