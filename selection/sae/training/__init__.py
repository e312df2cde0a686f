"""Training of SAEs (TopK, BatchTopK, Matryoshka, matching pursuit) and semi-NMF, resumable.

A training that was stopped ends in the same bytes.
Input: batches of activations and `TrainSettings`. Output: a `SparseCoder` and a `TrainReport`.
"""
