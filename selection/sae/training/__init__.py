"""Training of TopK, BatchTopK, Matryoshka SAEs and semi-NMF, resumable to the bit.

Input: batches of activations and `TrainSettings`. Output: a `SparseCoder` and a `TrainReport`.
"""
